"""Check that a tag may be released, and print its section of CHANGELOG.md: release_notes.py v1.2.3."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def release_notes(tag: str, root: Path = ROOT) -> str:
    """Return the changes in the version of a tag; exit if code, changelog or citation has another version."""
    code = (root / "smallfry" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', code, re.M)
    if version is None or tag != f"v{version[1]}":
        sys.exit(f"tag {tag} does not match smallfry.__version__, {version and version[1]}")
    heading = rf"^## \[{re.escape(version[1])}\] - (\d{{4}}-\d\d-\d\d)\n(.*?)(?=^## |^\[|\Z)"
    section = re.search(heading, (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M | re.S)
    if section is None or not section[2].strip():
        sys.exit(f"CHANGELOG.md lacks changes under '## [{version[1]}] - YYYY-MM-DD'")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    for line in (f"version: {version[1]}", f"date-released: {section[1]}"):
        if f"\n{line}\n" not in citation:
            sys.exit(f"CITATION.cff lacks '{line}'")
    return section[2].strip()


if __name__ == "__main__":
    sys.stdout.write(release_notes(sys.argv[1]) + "\n")
