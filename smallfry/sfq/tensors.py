"""The tensors of a ``.sfq`` file: their presence, dtype, shape and alignment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import (
    AlignmentError,
    CodebookError,
    CodeError,
    DtypeError,
    HeadOffsetsError,
    InputError,
    MetadataError,
    MissingTensorError,
    OffsetError,
    ShapeError,
    TokenizerError,
    ZeroRowsError,
)
from smallfry.offsets import check_heads
from smallfry.paging import PAGE, Paging
from smallfry.sfq.header import Header
from smallfry.sfq.metadata import Metadata
from smallfry.sfq.safetensors import tensor_dtype
from smallfry.table import check_trellis
from smallfry.text.model import CODE_POINT_BLOCKS, TextTensors

TOKEN_TENSORS = ("tokens", "token_offsets", "token_index")
_TOKENIZER_TENSORS = tuple(name for name in TextTensors._fields if name not in TextTensors._field_defaults)
_PAIRS = (("token_merges", "merge_index"), ("charsmap", "charsmap_text"))
_TRELLIS_TENSORS = ("column_scale", "rotation")
_UNPAGED_TENSORS = ("row_scale", "zero_rows", *TOKEN_TENSORS, *TextTensors._fields)

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Expected(NamedTuple):
    """The allowed dtypes and the shape of a tensor, in which None is any size."""

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...]


def expected_tensors(metadata: Metadata) -> dict[str, Expected]:
    """Return every tensor that a file with this metadata can have."""
    rows, dim, nbit = metadata.rows, metadata.dim, metadata.nbit
    stride = -(-dim * nbit // 8)
    if nbit == 32:
        expected = {"codes": Expected(("F32",), (rows, dim))}
    else:
        shape = Paging(rows, stride).shape if metadata.paged else (rows, stride)
        expected = {
            "codes": Expected(("U8",), shape),
            "codebook": Expected(("F32",), (None if metadata.codebook_kind == "trellis" else 2**nbit,)),
        }
    if metadata.codebook_kind == "trellis":
        expected["column_scale"] = Expected(("F32",), (dim,))
        expected["rotation"] = Expected(("F32",), (dim, dim))
    expected["mean"] = Expected(("F32",), (dim,))
    expected["head_offsets"] = Expected(("U64",), (None,))
    if metadata.paged:
        return expected
    if metadata.pooling is not None:
        expected |= _text_tensors(metadata.pooling.tokens)
    return expected | {
        "row_scale": Expected(("F16",), (rows,)),
        "zero_rows": Expected(("U32",), (None,)),
        "tokens": Expected(("U8",), (None,)),
        "token_offsets": Expected(("U32", "U64"), (rows + 1,)),
        "token_index": Expected(("U32",), (None,)),
    }


def _text_tensors(tokens: int) -> dict[str, Expected]:
    return {
        "tokenizer": Expected(("U8",), (None,)),
        "token_trie": Expected(("U32",), (None,)),
        "character_blocks": Expected(("U16",), (CODE_POINT_BLOCKS,)),
        "characters": Expected(("U32",), (None,)),
        "character_text": Expected(("U8",), (None,)),
        "token_scores": Expected(("F64",), (tokens,)),
        "token_merges": Expected(("U32",), (None, 3)),
        "merge_index": Expected(("U32",), (None,)),
        "charsmap": Expected(("U32",), (None,)),
        "charsmap_text": Expected(("U8",), (None,)),
        "token_rows": Expected(("U32",), (tokens,)),
        "token_weights": Expected(("F32",), (tokens,)),
    }


def check_tensors(header: Header, metadata: Metadata) -> None:
    """Check presence, dtype, shape, span, alignment and digest of every tensor of the format."""
    expected = expected_tensors(metadata)
    _check_presence(header, metadata, expected)
    for name, tensor in expected.items():
        if name in header.tensors:
            _check_tensor(name, header, metadata, tensor)
    if metadata.codebook_kind == "trellis":
        try:
            check_trellis(header.tensors["codebook"].shape[0], metadata.dim, metadata.nbit)
        except InputError as error:
            raise CodebookError(f"{error} The file is damaged.") from None


def check_values(arrays: Mapping[str, NDArray[Any]], rows: int) -> None:
    """Check the values of codebook, mean and column scales, the zero rows and the offsets of heads."""
    for name in ("codebook", "mean", "column_scale"):
        if name in arrays:
            check_finite(name, arrays[name])
    if "head_offsets" in arrays:
        try:
            check_heads(arrays["head_offsets"], rows)
        except InputError as error:
            raise HeadOffsetsError(f"{error} The file is damaged.") from None
    zero_rows = arrays.get("zero_rows", np.empty(0, np.uint32))
    if (zero_rows[1:] <= zero_rows[:-1]).any():
        raise ZeroRowsError("zero_rows is not strictly increasing. The file is damaged.")
    if len(zero_rows) and int(zero_rows[-1]) >= rows:
        raise ZeroRowsError(f"zero_rows names row {int(zero_rows[-1])}, and the table has {rows} rows.")


def check_finite(name: str, values: NDArray[Any]) -> None:
    """Raise CodeError if a tensor has NaN or infinity."""
    if not np.isfinite(values).all():
        raise CodeError(f"{name} has NaN or infinity, expected finite numbers. The file is damaged.")


def _check_presence(header: Header, metadata: Metadata, expected: Mapping[str, Expected]) -> None:
    for name in ("codes", "codebook"):
        if name in expected and name not in header.tensors:
            raise MissingTensorError(f"tensor {name!r} is missing. The file is damaged.")
    if "codebook" in header.tensors and "codebook" not in expected:
        raise CodebookError("a 32-bit table has a codebook, expected none. The file is damaged.")
    for name in _TRELLIS_TENSORS:
        if name in header.tensors and name not in expected:
            raise CodebookError(
                f"a table with {metadata.codebook_kind} codes has {name}, expected only with trellis codes. "
                "The file is damaged."
            )
    if metadata.paged:
        for name in _UNPAGED_TENSORS:
            if name in header.tensors:
                raise MetadataError(f"a paged table has {name}, expected none. The file is damaged.")
        if metadata.pooling is not None:
            raise MetadataError("a paged table has 'pooling', expected none. The file is damaged.")
        return
    present = [name for name in TOKEN_TENSORS if name in header.tensors]
    if present and "head_offsets" in header.tensors:
        raise MetadataError("a table with heads has a vocabulary, expected none. The file is damaged.")
    if present and len(present) < len(TOKEN_TENSORS):
        absent = ", ".join(name for name in TOKEN_TENSORS if name not in present)
        raise MissingTensorError(f"the vocabulary has {', '.join(present)}, but no {absent}.")
    if present and metadata.token_hash_seed is None:
        raise MetadataError("the metadata has no 'token_hash_seed', which the token index needs.")
    _check_text_presence(header, metadata)


def _check_text_presence(header: Header, metadata: Metadata) -> None:
    present = [name for name in TextTensors._fields if name in header.tensors]
    if metadata.pooling is None:
        if present:
            raise MetadataError(f"the metadata has no 'pooling', which {present[0]} needs.")
        return
    absent = [name for name in _TOKENIZER_TENSORS if name not in present]
    absent += [b for pair in _PAIRS for a, b in (pair, pair[::-1]) if a in present and b not in present]
    if absent:
        raise MissingTensorError(f"the tokenizer has no {', '.join(absent)}. The file is damaged.")
    if "token_rows" not in present and metadata.pooling.tokens > metadata.rows:
        raise TokenizerError(
            f"the tokenizer has {metadata.pooling.tokens} tokens for {metadata.rows} rows, and no "
            "token_rows. The file is damaged."
        )


def _check_tensor(name: str, header: Header, metadata: Metadata, expected: Expected) -> None:
    entry = header.tensors[name]
    if entry.dtype not in expected.dtypes:
        raise DtypeError(
            f"tensor {name!r} has dtype {entry.dtype!r}, expected {' or '.join(expected.dtypes)}. "
            "The file is damaged."
        )
    if len(entry.shape) != len(expected.shape) or any(
        size not in (None, found) for found, size in zip(entry.shape, expected.shape, strict=True)
    ):
        shape = ", ".join("any" if size is None else str(size) for size in expected.shape)
        error = CodebookError if name == "codebook" else ShapeError
        raise error(
            f"tensor {name!r} has shape {list(entry.shape)}, expected [{shape}] for "
            f"{metadata.rows} rows of {metadata.dim} values of {metadata.nbit} bits "
            f"({metadata.codebook_kind} codebook). The file is damaged."
        )
    itemsize, start = tensor_dtype(name, entry, _offset_error).itemsize, header.data_start + entry.begin
    if start % itemsize:
        raise AlignmentError(
            f"tensor {name!r} starts at byte {start:,}, which is not a multiple of {itemsize}, "
            f"the size of {entry.dtype}. Please compress it again."
        )
    if name == "codes" and metadata.paged and entry.shape[1:] == (PAGE,) and start % PAGE:
        raise AlignmentError(
            f"the blocks of a paged table start at byte {start:,}, which is not a multiple of {PAGE}. "
            "Please compress it again."
        )
    if not _SHA256.fullmatch(header.metadata.get(f"sha256.{name}", "")):
        raise MetadataError(f"the metadata has no SHA-256 'sha256.{name}'. Please compress it again.")


def _offset_error(reason: str) -> OffsetError:
    return OffsetError(f"{reason}. The file is damaged.")
