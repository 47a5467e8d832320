"""Bytes that belong to no tensor."""

from crafting import Crafted

from smallfry.errors import LayoutError

REFUSED_BY_OPEN = LayoutError


def raw() -> bytes:
    return Crafted(tail=b"#!/bin/sh\n").raw()
