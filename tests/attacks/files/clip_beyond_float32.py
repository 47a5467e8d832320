"""A clip that float32 has no number for."""

from crafting import Crafted

from smallfry.errors import CodebookError

REFUSED_BY_VERIFY = CodebookError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["clip"] = "1e39"
    return crafted.raw()
