"""A source whose JSON is nested deeper than Python recurses."""

from crafting import Crafted

from smallfry.errors import DigestError

REFUSED_BY_VERIFY = DigestError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata |= {"source": "[" * 200_000, "sha256.codes": "0" * 64}
    return crafted.raw()
