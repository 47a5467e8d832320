"""Make README.md's links to files absolute, for PyPI: pypi_readme.py https://HOST/OWNER/REPOSITORY REF."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
# Code, or a link or picture whose target is relative.
LINK = re.compile(r"^```.*?^```$|`[^`]+`|(!?)(\[[^][]*\])\((?!\w+:|[/#])([^)\s]+)\)", re.M | re.S)


def pypi_readme(text: str, url: str, ref: str) -> str:
    """Return the text with links to files, and with pictures, of a branch or tag of the repository."""

    def absolute(match: re.Match[str]) -> str:
        picture, label, path = match.groups()
        return f"{picture}{label}({url}/{'raw' if picture else 'blob'}/{ref}/{path})" if label else match[0]

    return LINK.sub(absolute, text)


if __name__ == "__main__":
    README.write_text(pypi_readme(README.read_text(encoding="utf-8"), *sys.argv[1:]), encoding="utf-8")
