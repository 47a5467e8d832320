"""Quantize tensors and vector files to tables."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.errors import InputError
from smallfry.nn.packed import Packed
from smallfry.quantization.options import Options
from smallfry.quantization.quantize import quantize_matrix
from smallfry.readers import open_vectors
from smallfry.table import Table

MODULE_OPTIONS = ("codebook_kind", "trellis_state_bits", "center", "row_scale")
"""Keyword arguments of modules for a smaller error at the same bit width."""

# Number of values converted to float32 at a time.
_CHUNK_VALUES = 1 << 22


def module_options(keywords: Mapping[str, Any]) -> Options:
    """Return the quantization options that the keyword arguments of a module name."""
    if "rotate" in keywords:
        raise InputError(
            "rotate changes the basis of the vectors, but the layers after an embedding expect the original "
            "basis. Please omit it, or open a rotated .sfq file with from_sfq."
        )
    if unknown := keywords.keys() - MODULE_OPTIONS:
        names = ", ".join(MODULE_OPTIONS)
        raise TypeError(f"unexpected argument {min(unknown)!r}; besides the parameters, {names}")
    return Options(**keywords)


@dataclass(frozen=True)
class TensorChunks:
    """Iterates over a real tensor of any dtype on any device.

    Each pass converts chunks of rows to float32 on CPU, so the device never holds a float32 copy.
    """

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.tensor.shape[0], self.tensor.shape[1]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 arrays ``[m, dim]``."""
        for chunk in self.tensor.split(max(1, _CHUNK_VALUES // self.shape[1])):
            yield chunk.to("cpu", torch.float32).numpy()


def quantize_tensor(weight: Tensor, nbit: int, options: Options) -> Table:
    """Compress a real tensor ``[rows, dim]`` of any dtype on any device."""
    if weight.ndim != 2 or weight.is_complex():
        raise InputError(f"the weight is {weight.dtype} {list(weight.shape)}, expected real and [rows, dim]")
    if not len(weight):
        return Packed.empty(0, weight.shape[1], nbit).to_table()
    weight = weight.detach()
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        return quantize_matrix(weight.numpy(), nbit, options)
    return quantize_matrix(TensorChunks(weight), nbit, options)


def quantize_file(path: str | os.PathLike[str], rows: int, dim: int, nbit: int, options: Options) -> Table:
    """Compress a file in any format of `smallfry.readers.open_vectors`, one row for each vector.

    Tokens are ignored, so duplicates keep their rows. Rows beyond the end of the file are zeros, with a
    warning.
    """
    matrix = np.zeros((rows, dim), np.float32)
    filled = 0
    with open_vectors(path, words=False) as source:
        if source.dim != dim:
            raise InputError(
                f"{path} has vectors of {source.dim} values, but embedding_dim is {dim}. "
                "Please make them equal."
            )
        for _, chunk in source.chunks(tokens=False):
            if filled + len(chunk) > rows:
                raise InputError(
                    f"{path} has more than {rows} vectors, which is num_embeddings. "
                    "Please increase it, or shorten the file."
                )
            matrix[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
    # Missing rows are added afterwards: their zeros must not affect the levels.
    table = quantize_matrix(matrix[:filled], nbit, options)
    if filled == rows:
        return table
    warnings.warn(
        f"{path} has {filled} vectors, fewer than num_embeddings, {rows}: the other rows are zeros.",
        stacklevel=4,
    )
    return _with_zero_rows(table, rows - filled)


def _with_zero_rows(table: Table, count: int) -> Table:
    codes = np.concatenate([table.codes, np.zeros((count, table.codes.shape[1]), table.codes.dtype)])
    if table.codebook is None:
        return replace(table, codes=codes)
    added = np.arange(table.rows, table.rows + count, dtype=np.uint32)
    scale = None if table.row_scale is None else np.concatenate([table.row_scale, np.ones(count, np.float16)])
    return replace(table, codes=codes, row_scale=scale, zero_rows=np.concatenate([table.zero_rows, added]))
