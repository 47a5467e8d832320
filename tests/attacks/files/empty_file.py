"""No bytes at all."""

from smallfry.errors import TruncatedError

REFUSED_BY_OPEN = TruncatedError


def raw() -> bytes:
    return b""
