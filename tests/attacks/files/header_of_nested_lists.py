"""A header of 300,000 brackets."""

from crafting import Crafted

from smallfry.errors import HeaderSyntaxError

REFUSED_BY_OPEN = HeaderSyntaxError


def raw() -> bytes:
    return Crafted().raw(b'{"a":' + b"[" * 300_000)
