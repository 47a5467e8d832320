"""Fenced code blocks of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
LANGUAGES = {"c", "js", "json", "python", "sh", "text", "toml", "yaml"}
OUTPUT = {"json", "text"}
# Packages that only `make test-ray` and `make test-ecosystem` install.
RAY = {"ray"}
ECOSYSTEM = {
    *("accelerate", "gensim", "langchain_openai", "litellm", "llama_index", "model2vec", "onnx", "openai"),
    *("peft", "sentence_transformers", "transformers"),
}
FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.M)
INDENTED = re.compile(r"\n\n(?: {4,}|\t)(?![-*|] |\d+\. ).*")


@dataclass
class Block:
    """A block of code; `output` is the block that shows what it prints."""

    language: str
    code: str
    line: int
    output: Block | None = None


def pages() -> list[Path]:
    """Return the pages whose code is tested, relative to the top folder."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(page.relative_to(ROOT) for page in [*found, *(ROOT / "examples").rglob("README.md")])


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page in order, outputs attached to the block before them."""
    found: list[Block] = []
    end = -1
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        block = Block(match[2], dedent(match[3]), line)
        follows = end >= 0 and not text[end : match.start()].strip()
        if follows and block.language in OUTPUT and found[-1].language in {"python", "sh", "c", "js"}:
            found[-1].output = block
        else:
            found.append(block)
        end = match.end()
    return found


def unfenced(text: str) -> list[str]:
    """Return code that is indented, and fences that are not those of a block."""
    rest = FENCE.sub("", text)
    return INDENTED.findall(rest) + re.findall(r".*(?:```|~~~).*", rest)


def suite(found: list[Block]) -> str:
    """Return the tests that install what the blocks import: `docs`, `ecosystem` or `ray`."""
    python = "\n".join(block.code for block in found if block.language == "python")
    imports = set(re.findall(r"^ *(?:import|from) (\w+)", python, re.M))
    if imports & RAY:
        return "ray"
    return "ecosystem" if imports & ECOSYSTEM or any(block.language == "js" for block in found) else "docs"


def pages_of(name: str) -> list[Path]:
    """Return the pages with code that a suite runs."""
    found = {page: blocks((ROOT / page).read_text(encoding="utf-8")) for page in pages()}
    return [page for page, code in found.items() if code and suite(code) == name]
