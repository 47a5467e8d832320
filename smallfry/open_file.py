"""An open ``.sfq`` file: its table and vocabulary, and what describes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry import pages
from smallfry.errors import NoTokenizerError, StoreClosedError
from smallfry.sfq.file import SfqFile, naming
from smallfry.table import Table
from smallfry.text.encoder import Encoder
from smallfry.text.model import Pooling
from smallfry.vocabulary import Vocabulary

_DICT_SAMPLE = 1000
_MEAN_VALUES = 1 << 18  # decoded at a time


class OpenFile:
    """An open ``.sfq`` file; the base class of `smallfry.Store`.

    Attributes
    ----------
    path : Path
        Path of the file.
    metadata : dict of str to str
        Metadata of the file.
    digest : str
        SHA-256 that identifies the content.
    """

    def __init__(self, file: SfqFile) -> None:
        self.path = file.path
        self.metadata = file.header.metadata
        self.digest = file.header.digest
        self._table: Table | None = file.table
        self._vocabulary = file.vocabulary
        self._text = file.text
        self._data: NDArray[np.uint8] | None = file.data
        self._locked = False
        if file.table.paged_rows is not None:
            pages.advise_random(file.data)

    @property
    def table(self) -> Table:
        """The packed matrix."""
        table = self._table  # read once: another thread can close the store
        if table is None:
            raise self._closed()
        return table

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The tokens of the rows; None if the file has none."""
        vocabulary = self._vocabulary
        if self._table is None:
            raise self._closed()
        return vocabulary

    @property
    def has_tokenizer(self) -> bool:
        """Whether the file is a text model, which `encoder` needs."""
        return self.pooling is not None

    @property
    def pooling(self) -> Pooling | None:
        """How the tokens of a text become its vector; None if the file has no tokenizer."""
        text = self._text
        if self._table is None:
            raise self._closed()
        return None if text is None else text.pooling

    def encoder(self) -> Encoder:
        """Return the encoder of texts.

        Raises
        ------
        NoTokenizerError
            The file has no tokenizer.
        TokenizerError
            The tokenizer is damaged.
        """
        table, text = self.table, self._text
        if text is None:
            raise NoTokenizerError(
                f"{self.path} has no tokenizer, so it encodes no texts. "
                "Use lookup(tokens) or rows(ids), or compress the directory of a static embedding model."
            )
        encoder: Encoder | None = self.__dict__.get("_encoder")
        if encoder is None:
            with naming(self.path):
                encoder = self.__dict__["_encoder"] = Encoder(table, text)
        return encoder

    @property
    def dim(self) -> int:
        """Values in a vector."""
        return self.table.dim

    @property
    def nbit(self) -> int:
        """Bits a value."""
        return self.table.nbit

    @property
    def nbytes(self) -> dict[str, int]:
        """Mapped bytes by part, 0 for an absent part, and their ``total``."""
        tokens = dict.fromkeys(("tokens", "token_offsets", "token_index"), 0)
        if self.vocabulary is not None:
            tokens = self.vocabulary.nbytes
        text = 0 if self._text is None else self._text.nbytes
        parts = self.table.nbytes | tokens | {"tokenizer": text}
        return parts | {"total": sum(parts.values())}

    @cached_property
    def baseline_nbytes(self) -> dict[str, int]:
        """Bytes of a ``float32`` matrix and of a ``dict`` from token to row, and their ``total``.

        The dict is estimated as CPython 3.11 and later lay it out: a hash table of the least power of two
        whose 2/3 hold the tokens; 1, 2 or 4 bytes a slot (up to 2**7, 2**15, more slots) and 16 bytes an
        entry; for each token, ``sys.getsizeof`` of as many ASCII characters as it has bytes, rounded up to
        the allocator's 16 bytes (the mean of 1,000 tokens spread over the rows), and 32 bytes for its row
        number. The tokens are not read.
        """
        float32 = 4 * len(self) * self.dim
        mapping = 0 if self.vocabulary is None else _dict_nbytes(self.vocabulary)
        return {"float32": float32, "dict": mapping, "total": float32 + mapping}

    def describe(self) -> dict[str, Any]:
        """Return the shape, encoding, error, digest, size and metadata of the table, ready for JSON."""
        table = self.table
        return {
            "rows": table.rows,
            "dim": table.dim,
            "nbit": table.nbit,
            "codebook_kind": table.codebook_kind,
            "clip": float(table.clip),
            "frobenius_error": float(table.frobenius_error),
            "has_vocabulary": self.vocabulary is not None,
            "has_tokenizer": self.has_tokenizer,
            "digest": self.digest,
            "bytes": self.nbytes,
            "metadata": dict(self.metadata),
        }

    def describe_size(self) -> dict[str, Any]:
        """Return the size of the store next to a float32 matrix and a dict of the same, ready for JSON."""
        return {
            "rows": len(self),
            "dim": self.dim,
            "nbit": self.nbit,
            "bytes": self.nbytes,
            "float32_bytes": self.baseline_nbytes["float32"],
            "dict_bytes": self.baseline_nbytes["dict"],
        }

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """The mean of all decoded rows, float32 ``[dim]``; the first use reads the whole table.

        It is summed in float64 in row order, in blocks of at most 262,144 values.
        """
        for _ in self.compute_mean():
            pass
        mean: NDArray[np.float32] = self.__dict__["mean"]
        return mean

    @property
    def has_mean(self) -> bool:
        """Whether `mean` is computed."""
        return "mean" in self.__dict__

    def compute_mean(self) -> Iterator[int]:
        """Compute `mean` in parts of a millisecond; yield the number of rows read after each."""
        total = np.zeros(self.dim)
        step = max(1, _MEAN_VALUES // self.dim)
        with pages.sequential(self.table.codes):
            for start in range(0, len(self), step):
                end = min(start + step, len(self))
                total += self.table.decode(np.arange(start, end)).sum(axis=0, dtype=np.float64)
                yield end
        self.__dict__["mean"] = (total / len(self)).astype(np.float32)

    def unrotated(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors of this store, float32 ``[n, dim]``, in the basis of the compressed matrix.

        Lookups return vectors in the rotated basis, which preserves dot products and distances. Without a
        rotation, `vectors` are returned unchanged.
        """
        rotation = self.table.rotation
        return vectors if rotation is None else vectors @ rotation.T

    def residency(self, sample: int | None = None) -> pages.Residency:
        """Return how much of the file is in memory, whichever process has read it.

        Parameters
        ----------
        sample : int, optional
            Estimate from that many pages, in evenly spaced windows, if the file has more. Counting all takes
            longer the larger the file is.

        Raises
        ------
        OSError
            The system cannot tell, or tells only the owner of the file and those who may write it.
        """
        return pages.residency(self._mapped(), self.path, sample)

    def lock(self) -> None:
        """Read the whole file and keep it in memory (mlock) until the store is closed.

        Only this process holds the lock, which a fork does not inherit.

        Raises
        ------
        OSError
            The limit of locked memory is too low; the message names it.
        """
        pages.lock(self._mapped(), self.path)
        self._locked = True

    def close(self) -> None:
        """Release the map, which is unmapped with the last array over it. Later use of the store raises."""
        if self._locked:
            self._locked = False
            pages.unlock(self._mapped())
        self._table = self._vocabulary = self._text = self._data = None
        self.__dict__.pop("_encoder", None)

    def __len__(self) -> int:
        return self.table.rows

    def _mapped(self) -> NDArray[np.uint8]:
        data = self._data
        if data is None:
            raise self._closed()
        return data

    def _closed(self) -> StoreClosedError:
        return StoreClosedError(f"the store of {self.path} is closed. Open it again with smallfry.open.")


def _dict_nbytes(vocabulary: Vocabulary) -> int:
    rows = len(vocabulary)
    slots = 8
    while 2 * slots // 3 < rows:
        slots *= 2
    slot_bytes = 1 if slots <= 2**7 else 2 if slots <= 2**15 else 4
    lengths = vocabulary.lengths(np.arange(0, rows, -(-rows // _DICT_SAMPLE)))
    token_bytes = float((-(-(sys.getsizeof("") + lengths) // 16) * 16).mean())
    return slots * slot_bytes + 2 * slots // 3 * 16 + round(rows * (token_bytes + 32))
