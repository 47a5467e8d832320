"""MkDocs hooks: pages from the top folder, and links to files outside docs/."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Address of a page of the site, and its file in the top folder.
PROJECT_PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
ADDRESSES = {file: address for address, file in PROJECT_PAGES.items()}
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^)\s#:]+)(#[^)\s]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top folder."""
    for address, file in PROJECT_PAGES.items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository at their page or at ``repo_url``.

    Without ``repo_url``, links to files that are no pages become plain text.
    """
    folder = os.path.dirname(page.file.abs_src_path or "")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = os.path.relpath(os.path.join(folder, target), ROOT)
        address = ADDRESSES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(address):
            return f"[{text}]({os.path.relpath(address, os.path.dirname(page.file.src_uri))}{anchor})"
        if path.startswith("docs/") or not os.path.exists(ROOT / path):
            return match[0]  # MkDocs reports it
        return f"[{text}]({config.repo_url}/blob/main/{path}{anchor})" if config.repo_url else text

    return LINK.sub(link, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Keep Material from requesting the stars of the repository from GitHub."""
    return output.replace('data-md-component="source"', "")
