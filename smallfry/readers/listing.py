"""Names of untrusted length in error messages, which are one line."""

from __future__ import annotations

from collections.abc import Sequence

MAX_MESSAGE = 450
"""Characters of a message that lists names: with a prefix, it has at most 500."""


def cut(text: str, limit: int) -> str:
    """Return `text` on one line and shortened to `limit` characters."""
    if not text.isprintable():
        text = repr(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listing(names: Sequence[str], limit: int) -> str:
    """Return the first names that fit in about `limit` characters, then the number of the others."""
    shown: list[str] = []
    for name in names:
        name = cut(name, 100)
        limit -= len(name) + 2
        if limit < 0 and shown:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as text, shortened if it has many dimensions."""
    if len(shape) <= 4:
        return str(list(shape))
    return f"[{', '.join(map(str, shape[:3]))}, …] ({len(shape):,} dimensions)"
