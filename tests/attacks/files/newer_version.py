"""A format version of the future."""

from crafting import Crafted

from smallfry.errors import NewerVersionError

REFUSED_BY_OPEN = NewerVersionError


def raw() -> bytes:
    crafted = Crafted()
    crafted.metadata["version"] = "2"
    return crafted.raw()
