"""No digest for the codes, which nothing could then check."""

from crafting import Crafted

from smallfry.errors import MetadataError

REFUSED_BY_OPEN = MetadataError


def raw() -> bytes:
    return Crafted(digests=False).raw()
