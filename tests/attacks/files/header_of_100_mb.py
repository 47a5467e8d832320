"""A header of 100 MB, all of it there."""

from smallfry.errors import HeaderSizeError

REFUSED_BY_OPEN = HeaderSizeError


def raw() -> bytes:
    length = 100_000_000
    return length.to_bytes(8, "little") + b"{" + bytes(length - 1)
