"""A header that is no UTF-8."""

from crafting import Crafted

from smallfry.errors import HeaderSyntaxError

REFUSED_BY_OPEN = HeaderSyntaxError


def raw() -> bytes:
    return Crafted().raw(b'{"\xff\xfe": 1}')
