"""Data that begins at no page, so that arrays would lie across words."""

from crafting import Crafted

from smallfry.errors import AlignmentError

REFUSED_BY_OPEN = AlignmentError


def raw() -> bytes:
    return Crafted(alignment=8).raw()
