"""A pickle that would run a program, under the name of a .sfq file."""

from smallfry.errors import NotSfqError

REFUSED_BY_OPEN = NotSfqError


def raw() -> bytes:
    return b"\x80\x04cposix\nsystem\n(S'touch owned'\ntR." + bytes(5000)
