"""Builds crafted ``.sfq`` files from a valid one, and registers them with the errors that reject them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smallfry.errors import SfqError
from smallfry.vocabulary import PackedTokens, Vocabulary
from tests.helpers.crafted_files import Crafted

Build = Callable[[], bytes]
Error = type[SfqError]


@dataclass(frozen=True)
class CraftedFile:
    """One crafted file.

    Attributes
    ----------
    build : callable
        Returns the bytes.
    open_error : type of SfqError or None
        Raised wherever the file is opened; None if only `smallfry.sfq.verify` rejects it.
    verify_error : type of SfqError or None
        Raised by `smallfry.sfq.verify`; None for a valid file that costs much to use.
    encoder_error : type of SfqError or None
        Raised when the encoder of a file that opens is opened, as a server does at its start.
    """

    build: Build
    open_error: Error | None
    verify_error: Error | None
    encoder_error: Error | None = None

    @property
    def name(self) -> str:
        """The file's name, without suffix."""
        return self.build.__name__

    @property
    def is_served(self) -> bool:
        """Whether a server serves it."""
        return self.open_error is None and self.encoder_error is None


FILES: dict[str, CraftedFile] = {}


def rejected_by_open(error: Error) -> Callable[[Build], Build]:
    """Register a file that no reader of the format accepts."""
    return lambda build: register(build, error, error)


def rejected_by_verify(error: Error) -> Callable[[Build], Build]:
    """Register a file that opens, and that `smallfry.sfq.verify` rejects."""
    return lambda build: register(build, None, error)


def rejected_by_encoder(error: Error) -> Callable[[Build], Build]:
    """Register a file that opens, and whose texts nothing encodes."""
    return lambda build: register(build, None, error, error)


def accepted(build: Build) -> Build:
    """Register a valid file."""
    return register(build, None, None)


def register(
    build: Build,
    open_error: Error | None,
    verify_error: Error | None,
    encoder_error: Error | None = None,
) -> Build:
    """Add a file to `FILES`."""
    FILES[build.__name__] = CraftedFile(build, open_error, verify_error, encoder_error)
    return build


def with_metadata(**metadata: str) -> bytes:
    """Return a valid file in which some metadata is replaced."""
    crafted = Crafted()
    crafted.metadata |= metadata
    return crafted.raw()


def with_arrays(**arrays: np.ndarray) -> bytes:
    """Return a valid file in which some arrays are replaced; digests match them."""
    crafted = Crafted()
    crafted.arrays |= arrays
    return crafted.raw()


def with_entry(name: str, **fields: object) -> bytes:
    """Return a valid file in which the header's entry of one tensor is changed."""
    return Crafted(entries={name: dict(fields)}).raw()


def with_rows(rows: int, names: PackedTokens | list[bytes], /, **arrays: np.ndarray) -> bytes:
    """Return a valid file with other rows and tokens, and some arrays replaced."""
    crafted, vocabulary = Crafted(), Vocabulary.build(names, unnamed=True)
    crafted.add(
        token_offsets=vocabulary.offsets,
        token_index=vocabulary.index,
        codes=np.zeros((rows, 2), np.uint8),
        tokens=vocabulary.tokens,
    )
    crafted.add(**arrays)
    crafted.metadata |= {"rows": str(rows), "token_hash_seed": str(vocabulary.seed)}
    return crafted.raw()


def packed(tokens: bytes, rows: int) -> PackedTokens:
    """Return tokens of equal length."""
    offsets = np.linspace(0, len(tokens), rows + 1, dtype=np.int64)
    return PackedTokens(np.frombuffer(tokens, np.uint8), offsets)


def index() -> np.ndarray:
    """Return the token index of the valid file."""
    return Vocabulary.build(["a", "b", "c", "d"]).index


#: Bytes of the files that cost much to use.
LARGE = 1 << 22

WRONG_DIGEST = {"sha256.codes": "0" * 64}
