"""A source that `info --json` would repeat as what is no JSON: NaN and infinity."""

from crafting import Crafted

from smallfry.errors import TokenTableError

REFUSED_BY_VERIFY = TokenTableError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["source"] = '{"name": NaN, "sha256": 1e999}'
    return crafted.raw()
