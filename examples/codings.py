"""Codings that the examples compare, named as in ``smallfry evaluate``."""

from __future__ import annotations

from typing import Any

from smallfry import BEST

CODINGS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "uniform+row-scale": {"row_scale": True},
    "trellis": {"codebook_kind": "trellis"},
    "trellis+row-scale": {"codebook_kind": "trellis", "row_scale": True},
    "best": BEST,
}
"""Name to options of `smallfry.compress.quantize`."""


def parse(name: str) -> tuple[int, dict[str, Any]]:
    """Return the bits per value and the options of a name such as ``"2 best"``."""
    nbit, coding = name.split(" ")
    return int(nbit), CODINGS[coding]
