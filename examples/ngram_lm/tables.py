"""The compressed tables: files of smallfry, and rows rounded to integers or fp8 as other stores keep them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import smallfry
from examples import codings
from examples.ngram_lm.model import Size

METHODS = (
    *(f"{nbit} {kind}" for kind in ("uniform", "uniform+row-scale") for nbit in (8, 4, 2, 1)),
    *(f"{nbit} int" for nbit in (8, 4, 3, 2, 1)),
    "8 fp8",
    *(f"{nbit} trellis+row-scale" for nbit in (4, 3, 2, 1)),
    *(f"{nbit} best" for nbit in (3, 2)),
)
"""Bits per value and method: a name of `codings.CODINGS`, ``int`` or ``fp8``."""


Gather = Callable[[Tensor], Tensor]
"""From row numbers local to their heads, int64 ``[..., heads]``, to rows, float32 ``[..., heads, dim]``."""


@dataclass(frozen=True)
class Compressed:
    """A compressed table: how to read it, and its bytes without the header of a file."""

    gather: Gather
    nbytes: int


def compress(name: str, table: Tensor, size: Size, folder: Path) -> Compressed:
    """Compress a table ``[heads * rows, dim]``; smallfry's files are paged and stay in `folder`."""
    nbit, kind = int(name.split(" ")[0]), name.split(" ")[1]
    offsets = torch.from_numpy(size.offsets[:-1])
    if kind in ("int", "fp8"):
        round_rows = rounded_to_fp8 if kind == "fp8" else lambda rows: rounded_to_int(rows, nbit)
        nbytes = len(table) * (-(-size.dim * nbit // 8) + 4)
        return Compressed(lambda ids: round_rows(table[ids + offsets]), nbytes)
    _, options = codings.parse(name)
    quantized = smallfry.quantize(table.numpy(), nbit, **options).paged(size.offsets)
    store = smallfry.save(folder / f"{name.replace(' ', '-')}.sfq", quantized)
    return Compressed(
        lambda ids: torch.from_numpy(store.unrotated(store.gather(ids.numpy()))),
        sum(store.table.nbytes.values()),
    )


def rounded_to_int(rows: Tensor, nbit: int) -> Tensor:
    """Round each row to symmetric integers, with a float32 scale that maps the largest to its maximum.

    At 1 bit, to the sign times the mean absolute value.
    """
    if nbit == 1:
        return torch.where(rows < 0, -1.0, 1.0) * rows.abs().mean(-1, keepdim=True)
    most = 2 ** (nbit - 1) - 1
    scale = rows.abs().amax(-1, keepdim=True) / most
    return torch.where(scale == 0, 0.0, (rows / scale).round().clamp(-most, most) * scale)


def rounded_to_fp8(rows: Tensor) -> Tensor:
    """Round each row to E4M3, with a float32 scale that maps the largest value to 448."""
    scale = rows.abs().amax(-1, keepdim=True) / 448
    scaled = torch.where(scale == 0, 0.0, rows / scale).clamp(-448, 448)
    return scaled.to(torch.float8_e4m3fn).float() * scale
