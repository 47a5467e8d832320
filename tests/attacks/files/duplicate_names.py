"""A name that stands twice: readers that take the last and those that take the first would differ."""

import json

from crafting import Crafted

from smallfry.errors import HeaderSyntaxError

REFUSED_BY_OPEN = HeaderSyntaxError


def raw() -> bytes:
    text = json.dumps(Crafted().header()).encode()
    return Crafted().raw(text.replace(b'"tokens"', b'"codes"'))
