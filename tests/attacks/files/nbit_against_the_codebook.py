"""4 bits a value in the metadata, a codebook for 2."""

from crafting import Crafted

from smallfry.errors import CodebookError

REFUSED_BY_OPEN = CodebookError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata |= {"nbit": "4", "dim": "4"}
    return crafted.raw()
