"""A header that claims 2**64 - 1 bytes."""

from smallfry.errors import HeaderSizeError

REFUSED_BY_OPEN = HeaderSizeError


def raw() -> bytes:
    return (2**64 - 1).to_bytes(8, "little") + b"{}" + bytes(5000)
