"""Verify a ``.sfq`` file: every digest, and every rule that mapping it does not check."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import kernels
from smallfry.errors import (
    CodebookError,
    CodeError,
    DigestError,
    RotationError,
    TokenizerError,
    TokenTableError,
    shorten,
)
from smallfry.pages import sequential
from smallfry.paging import Paging
from smallfry.progress import Progress
from smallfry.quantization.levels import uniform_levels
from smallfry.sfq import file as sfq
from smallfry.sfq.tensors import check_finite
from smallfry.table import Table
from smallfry.text import settings
from smallfry.text.model import TextModel
from smallfry.text.verify import verify_tables
from smallfry.vocabulary import Vocabulary

_CHUNK_BYTES = 1 << 24
_CHUNK_ROWS = 1 << 16
_ORTHOGONAL = 1e-3  # most relative error of a random vector that is rotated and back
_SHOWN = 256  # bytes of a token that a message is made of


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify`."""

    digest: str  # identifies the content
    tensors: tuple[str, ...]  # names of the verified tensors
    tokens: int  # number of tokens found at their rows; less than the rows if some are unnamed
    nbytes: int  # size of the file


def verify(path: str | os.PathLike[str], progress: Progress | None = None) -> VerifyReport:
    """Read a whole ``.sfq`` file and check every rule of the format.

    In addition to the checks of `smallfry.sfq.file.map`: tensors match their SHA-256, decoded values are
    finite, a uniform codebook is evenly spaced, a rotation is orthogonal, unused bits of rows are zero,
    offsets of tokens never decrease, and each token is found at the first row that has it, and not at all if
    it is not valid UTF-8. Of a text model: its settings are valid, rows and weights of tokens exist and are
    finite, its characters and merges lead to what exists, and the trie has each token of the vocabulary.

    Parameters
    ----------
    path : path
    progress : callable, optional
        Called with ``"digest"`` and bytes, or ``"tokens"`` and rows.

    Raises
    ------
    SfqError
        The class names the first violated rule.
    OSError
        The file cannot be opened.
    """
    return verify_file(sfq.map(path), progress)


def verify_file(file: sfq.SfqFile, progress: Progress | None = None) -> VerifyReport:
    """Verify a file that is mapped; see `verify`."""
    arrays = sfq.arrays(file.table, file.vocabulary, file.text)
    with sfq.naming(file.path), sequential(file.data):
        _check_digests(arrays, file.header.metadata, progress)
        _check_values(file.table)
        _check_padding(file.table)
        named = 0 if file.vocabulary is None else _check_vocabulary(file.vocabulary, progress)
        if file.text is not None:
            _check_text(file.text, file.table.rows, file.vocabulary)
    return VerifyReport(
        digest=file.header.digest,
        tensors=tuple(arrays),
        tokens=named,
        nbytes=file.data.nbytes,
    )


def _check_digests(
    arrays: dict[str, NDArray[Any]], metadata: dict[str, str], progress: Progress | None
) -> None:
    done, total = 0, sum(array.nbytes for array in arrays.values())
    for name, array in arrays.items():
        data, digest = sfq.raw_bytes(array), hashlib.sha256()
        for start in range(0, len(data), _CHUNK_BYTES):
            part = data[start : start + _CHUNK_BYTES]
            digest.update(part)
            done += len(part)
            if progress is not None:
                progress("digest", done, total)
        if digest.hexdigest() != metadata[f"sha256.{name}"]:
            raise DigestError(
                f"tensor {name!r} has the SHA-256 {digest.hexdigest()}, "
                f"expected {metadata[f'sha256.{name}']}. The file is damaged; please copy it again."
            )


def _check_values(table: Table) -> None:
    floats: dict[str, NDArray[Any] | None] = {
        "row_scale": table.row_scale,
        "rotation": table.rotation,
        "codes": table.codes if table.nbit == 32 else None,
    }
    for name, array in floats.items():
        for part in [] if array is None else _in_rows(array):
            check_finite(name, part)
    if table.codebook_kind == "uniform" and table.codebook is not None:
        with np.errstate(over="ignore"):  # levels of a clip beyond float32 are infinite and never match
            levels = uniform_levels(table.clip, table.nbit)
        if not np.array_equal(table.codebook, levels):
            raise CodebookError(
                f"the codebook is not {len(levels)} evenly spaced levels from {-table.clip} to {table.clip}, "
                "as its kind 'uniform' requires. The file is damaged."
            )
    if table.rotation is not None:
        _check_orthogonal(table.rotation)


def _check_orthogonal(rotation: NDArray[np.float32]) -> None:
    """Rotate random vectors and back, which takes time in proportion to the matrix."""
    vectors = np.random.default_rng(0).standard_normal((len(rotation), 8), np.float32)
    with np.errstate(all="ignore"):
        error = np.linalg.norm(rotation @ (rotation.T @ vectors) - vectors) / np.linalg.norm(vectors)
    if not error <= _ORTHOGONAL:
        raise RotationError(
            f"the rotation and its transpose change vectors by {error:.2g} of their norm, expected an "
            "orthogonal matrix. The file is damaged; please compress it again."
        )


def _check_records(table: Table, paging: Paging) -> None:
    """Check the records of a paged table, and the padding between and after them."""
    step = max(1, _CHUNK_BYTES // paging.block)
    used = table.dim * table.nbit % 8
    for start in range(0, len(table.codes), step):
        blocks = np.asarray(table.codes[start : start + step], np.uint8)
        records = paging.records(blocks).reshape(-1, paging.record)
        held = records[: paging.rows - start * paging.per_block]
        if used and (held[:, paging.stride - 1] >> used).any():
            row = start * paging.per_block + int((held[:, paging.stride - 1] >> used).argmax())
            raise CodeError(f"row {row} has {8 - used} unused bits that are not zero. The file is damaged.")
        check_finite("scale", np.ascontiguousarray(held[:, paging.stride :]).view("<f2"))
        if records[len(held) :].any() or blocks[:, paging.per_block * paging.record :].any():
            raise CodeError("the padding of the blocks is not zeros. The file is damaged.")


def _check_padding(table: Table) -> None:
    if table.paging is not None:
        _check_records(table, table.paging)
        return
    used = table.dim * table.nbit % 8
    if used == 0:
        return
    for start, part in zip(range(0, table.rows, _CHUNK_ROWS), _in_rows(table.codes), strict=True):
        padded = np.flatnonzero(part[:, -1] >> used)
        if len(padded):
            raise CodeError(
                f"row {start + padded[0]} has {8 - used} unused bits that are not zero. The file is damaged."
            )


def _check_vocabulary(vocabulary: Vocabulary, progress: Progress | None) -> int:
    """Return the number of named rows."""
    tokens, offsets, rows = vocabulary.tokens, vocabulary.offsets, len(vocabulary)
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(falls):
        raise TokenTableError(f"the token of row {falls[0]} ends before it begins. The file is damaged.")
    unnamed = 0
    for start in range(0, rows, _CHUNK_ROWS):
        end = min(start + _CHUNK_ROWS, rows)
        bounds = offsets[start : end + 1].astype(np.int64)
        part, bounds = tokens[bounds[0] : bounds[-1]], bounds - bounds[0]
        found = vocabulary.find_utf8(part, bounds)
        # The index has the first of equal tokens.
        right = (found >= 0) & (found <= np.arange(start, end))
        invalid = kernels.invalid_utf8(part, bounds)
        right[invalid] = found[invalid] < 0
        wrong = np.flatnonzero(~right)
        if len(wrong):
            row = start + int(wrong[0])
            token = tokens[offsets[row] : offsets[row + 1]][:_SHOWN].tobytes().decode(errors="replace")
            raise TokenTableError(
                f"the token of row {row}, {shorten(token)}, is found at row {found[wrong[0]]}. "
                "The file is damaged."
            )
        unnamed += int(np.count_nonzero(found != np.arange(start, end)))
        if progress is not None:
            progress("tokens", end, rows)
    indexed, named = rows - vocabulary.count_unnamed(), rows - unnamed
    if indexed != named:
        raise TokenTableError(
            f"token_index has {indexed} entries, expected {named}, one for each distinct token. "
            "The file is damaged."
        )
    return named


def _check_text(text: TextModel, rows: int, vocabulary: Vocabulary | None) -> None:
    loaded = settings.load(text)
    tensors = text.tensors
    for name in ("token_scores", "token_weights"):
        values = getattr(tensors, name)
        if values is not None:
            check_finite(name, values)
    if tensors.token_rows is not None:
        wrong = np.flatnonzero(tensors.token_rows >= rows)
        if len(wrong):
            raise TokenizerError(
                f"token_rows gives token {wrong[0]} the row {tensors.token_rows[wrong[0]]}, and the table "
                f"has {rows:,} rows. The file is damaged."
            )
    verify_tables(tensors, text.pooling.tokens)
    if kernels.native:
        kernels.Tokenizer(loaded, text.present())
        if vocabulary is not None:
            _check_trie(tensors.token_trie, vocabulary, {token["id"] for token in loaded["added"]})


def _check_trie(trie: NDArray[np.uint32], vocabulary: Vocabulary, added: set[int]) -> None:
    """Check that the trie has the tokens of rows; added tokens are found before it is used."""
    for start in range(0, len(vocabulary), _CHUNK_ROWS):
        end = min(start + _CHUNK_ROWS, len(vocabulary))
        bounds = vocabulary.offsets[start : end + 1].astype(np.int64)
        part, bounds = vocabulary.tokens[bounds[0] : bounds[-1]], bounds - bounds[0]
        rows = np.arange(start, end)
        wrong = rows[kernels.find_in_trie(trie, part, bounds) != rows]
        wrong = wrong[vocabulary.find_utf8(part, bounds)[wrong - start] == wrong]  # named rows
        for row in wrong.tolist():
            if row not in added:
                raise TokenizerError(
                    f"token_trie does not have the token of row {row}, {shorten(vocabulary.token(row))}. "
                    "The file is damaged."
                )


def _in_rows(array: NDArray[Any]) -> list[NDArray[Any]]:
    return [array[start : start + _CHUNK_ROWS] for start in range(0, len(array), _CHUNK_ROWS)]
