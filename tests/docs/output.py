"""Compare what a block prints with what the page shows."""

from __future__ import annotations

import re

WHITE_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|\s+')


def matches(printed: str, shown: str, language: str) -> bool:
    """Whether a page shows what is printed. `…` is any text; white space in JSON does not count."""
    if language == "json":
        printed, shown = (WHITE_SPACE.sub(lambda match: match[1] or "", text) for text in (printed, shown))
    else:
        printed, shown = ("\n".join(map(str.rstrip, text.strip().splitlines())) for text in (printed, shown))
    pattern = ".*?".join(map(re.escape, shown.split("…")))
    return re.fullmatch(pattern, printed, re.S) is not None
