"""A size of 300,000 digits, which takes seconds to convert."""

from crafting import Crafted

from smallfry.errors import HeaderSyntaxError

REFUSED_BY_OPEN = HeaderSyntaxError


def raw() -> bytes:
    return Crafted().raw(b'{"codes":{"shape":[' + b"9" * 300_000 + b"]}}")
