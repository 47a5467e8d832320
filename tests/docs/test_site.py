"""The documentation site; `make docs` builds it and fails on a broken link."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_navigation_lists_every_page():
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted({*pages, "changelog.md", "contributing.md", "security.md"})
