"""Read the state dict of a packed module, in one of three forms.

- ``codes``, ``codebook`` and optionally ``mean``, ``column_scale``, ``row_scale`` and ``zero_rows``: the
  module's own buffers, or the tensors of a ``.sfq`` file as loaded by ``safetensors.torch.load_file``;
- an int64 ``weight`` with a ``value_list``, as saved by HazyResearch/smallfry: 64 / nbit values in each
  int64, the first in the high bits;
- a float ``weight``, as saved by ``torch.nn.Embedding``; it is quantized on loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from smallfry.errors import InputError
from smallfry.nn.packed import PARTS, Packed
from smallfry.nn.quantize import quantize_tensor
from smallfry.quantization.options import Options
from smallfry.table import STATE_BITS, check_trellis


@dataclass
class Loading:
    """One call of ``load_state_dict`` on a table that an embedding and its tied heads share.

    A checkpoint may have the float weight of any of them, or of several.
    """

    missing_keys: list[str]
    """The list of the call, which identifies it."""
    missed: list[str] = field(default_factory=list)
    weights: set[object] = field(default_factory=set)
    by_head: bool = False
    """Whether a head has loaded the table; the embedding then misses nothing."""

    @classmethod
    def of(cls, missing_keys: list[str], last: Loading | None) -> Loading:
        """Return the current call, which is ``last`` if that has the same ``missing_keys``."""
        return last if last is not None and last.missing_keys is missing_keys else cls(missing_keys)

    def has(self, entries: Mapping[str, Tensor]) -> bool:
        """Return whether the weight in ``entries`` is the memory of a loaded one."""
        return "weight" in entries and _memory(entries["weight"]) in self.weights

    def add(self, entries: Mapping[str, Tensor], by_head: bool) -> None:
        """Note that ``entries`` are loaded; what the embedding missed before a head is not missing."""
        self.weights.add(_memory(entries.get("weight")))
        if by_head:
            self.by_head = True
            self.missing_keys[:] = [name for name in self.missing_keys if name not in self.missed]

    def miss(self, names: list[str]) -> None:
        """Report missing entries, under each name of the embedding as torch does, unless a head has them."""
        if not self.by_head:
            self.missed += names
            self.missing_keys.extend(names)


def select(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries of the module named by ``prefix``, without it.

    The empty weight next to the codes in a folder of transformers is left out.
    """
    entries = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    weight = entries.get("weight")
    if "codes" in entries and isinstance(weight, Tensor) and weight.shape == (0,):
        del entries["weight"]
    return entries


def read(entries: Mapping[str, Tensor], rows: int, dim: int, nbit: int) -> Packed | None:
    """Return the packed table in a module's state dict, None if it has none of the three forms.

    The names in ``entries`` are without the module's prefix.
    """
    for name in names(entries) & entries.keys():
        if not isinstance(entries[name], Tensor):
            raise InputError(f"{name} is a {type(entries[name]).__name__}, expected a tensor")
    weight = entries.get("weight")
    if weight is None:
        packed = _from_buffers(entries, dim, nbit)
    elif weight.dtype == torch.int64:
        packed = _from_words(weight, entries.get("value_list"), dim, nbit)
    else:
        _expect("weight", weight, weight.dtype, (rows, dim))
        options = Options("trellis" if nbit == 3 else "uniform")
        packed = Packed.from_table(quantize_tensor(weight, nbit, options), weight.dtype)
    if packed is not None:
        verify(packed, rows)
    return packed


def names(entries: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the entries used by `read`."""
    return {"weight", "value_list"} if "weight" in entries else set(PARTS)


def unpack_words(words: Tensor, dim: int, nbit: int) -> Tensor:
    """Convert 64-bit words, first value in the high bits, to packed codes, low bits first."""
    shifts = torch.arange(56, -8, -8, device=words.device)
    codes = (words.unsqueeze(2) >> shifts & 0xFF).to(torch.uint8).flatten(1)
    if nbit == 16:
        # The words are big-endian, 16-bit codes of a table little-endian.
        codes = codes.unflatten(1, (-1, 2)).flip(2).flatten(1)
    elif nbit < 8:
        codes = _reversed_bytes(nbit, words.device)[codes.to(torch.int64)]
    return codes[:, : -(-dim * nbit // 8)].contiguous()


def _memory(weight: Tensor | None) -> object:
    """Return a key that is equal for plain tensors over the same memory."""
    if type(weight) is not Tensor or weight.is_meta:
        return id(weight)
    return weight.device, weight.dtype, weight.data_ptr(), weight.stride()


def _reversed_bytes(nbit: int, device: torch.device) -> Tensor:
    """Return the bytes 0 … 255 with their values in reverse order."""
    byte = torch.arange(256, device=device)
    reverse = torch.zeros_like(byte)
    for shift in range(0, 8, nbit):
        reverse |= (byte >> shift & (2**nbit - 1)) << (8 - nbit - shift)
    return reverse.to(torch.uint8)


def _from_buffers(entries: Mapping[str, Tensor], dim: int, nbit: int) -> Packed | None:
    if "codes" not in entries or (nbit < 32 and "codebook" not in entries):
        return None
    parts = {name: entries.get(name) for name in PARTS}
    zero_rows = parts["zero_rows"]
    if zero_rows is not None:
        parts["zero_rows"] = zero_rows.to(torch.int64) if len(zero_rows) else None
    return Packed(**parts, dim=dim, nbit=nbit)  # type: ignore[arg-type]


def _from_words(words: Tensor, value_list: Tensor | None, dim: int, nbit: int) -> Packed:
    if nbit in (3, 32) or value_list is None:
        raise InputError(
            "the weight is int64, so it is packed and needs a value_list and nbit 1, 2, 4, 8 or 16; "
            f"nbit is {nbit} and the value_list is {'absent' if value_list is None else 'present'}"
        )
    _expect("weight", words, torch.int64, (words.shape[0], -(-dim * nbit // 64)))
    if value_list.ndim != 1 or not 1 <= len(value_list) <= 2**nbit:
        raise InputError(f"value_list has shape {list(value_list.shape)}, expected 1 to {2**nbit} values")
    codebook = value_list.new_zeros(2**nbit)
    codebook[: len(value_list)] = value_list
    return Packed(unpack_words(words, dim, nbit), codebook, None, None, None, None, dim, nbit)


def verify(packed: Packed, rows: int) -> None:
    """Raise InputError unless the tensors have the dtypes and shapes of a table of ``rows`` rows."""
    dim, nbit = packed.dim, packed.nbit
    if packed.codebook is None:
        _expect("codes", packed.codes, packed.codes.dtype, (rows, dim))
    else:
        _expect("codes", packed.codes, torch.uint8, (rows, -(-dim * nbit // 8)))
        values = packed.codebook.numel()
        trellis = nbit == 3 or (nbit < 8 and values >= 2 ** STATE_BITS[0])
        if trellis:
            check_trellis(values, dim, nbit)
        _expect("codebook", packed.codebook, packed.codebook.dtype, (values if trellis else 2**nbit,))
        if packed.column_scale is not None:
            if not trellis:
                raise InputError(f"column_scale needs a trellis codebook, but codebook has {values} values")
            _expect("column_scale", packed.column_scale, torch.float32, (dim,))
    if not packed.dtype.is_floating_point:
        raise InputError(f"the values of the table are {packed.dtype}, expected a floating dtype")
    if packed.mean is not None:
        _expect("mean", packed.mean, torch.float32, (dim,))
    if packed.row_scale is not None:
        _expect("row_scale", packed.row_scale, torch.float16, (rows,))
    zero_rows = packed.zero_rows
    if zero_rows is not None and not zero_rows.is_meta:
        _expect("zero_rows", zero_rows, torch.int64, (zero_rows.numel(),))
        increasing = bool((zero_rows[1:] > zero_rows[:-1]).all())
        if not increasing or int(zero_rows[0]) < 0 or int(zero_rows[-1]) >= rows:
            raise InputError(f"zero_rows is not strictly increasing within the {rows} rows of the table")


def _expect(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tensor.shape != shape:
        raise InputError(
            f"{name} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}; "
            "were num_embeddings, embedding_dim and nbit the same?"
        )
