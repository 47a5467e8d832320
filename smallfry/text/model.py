"""What a ``.sfq`` file of a static embedding model holds besides its table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import MetadataError

MAX_TOKENS = 1 << 31
"""A trie has values of 31 bits."""

CODE_POINT_BLOCKS = 0x110000 // 256
"""Number of blocks of 256 code points."""

_SIZES = ("tokens", "max_tokens", "max_characters", "skip")


class TextTensors(NamedTuple):
    """The tensors of a text model, under their names in the file, as in `docs/reference/format.md`."""

    tokenizer: NDArray[np.uint8]
    """uint8 ``[bytes]``: the settings of the tokenizer in JSON."""
    token_trie: NDArray[np.uint32]
    """uint32 ``[units]``: a double-array trie from the UTF-8 of a token to its id."""
    character_blocks: NDArray[np.uint16]
    """uint16 ``[4352]``: the block of 256 entries in `characters` for each 256 code points."""
    characters: NDArray[np.uint32]
    """uint32 ``[blocks * 256]``: classes and replacement of each code point."""
    character_text: NDArray[np.uint8]
    """uint8 ``[bytes]``: the replacements, each after a byte with its length."""
    token_scores: NDArray[np.float64] | None = None
    """float64 ``[tokens]``: log probabilities (Unigram)."""
    token_merges: NDArray[np.uint32] | None = None
    """uint32 ``[merges, 3]``: left, right and merged token of each merge, by rank (BPE)."""
    merge_index: NDArray[np.uint32] | None = None
    """uint32 ``[slots]``: a hash table from a pair of tokens to the merge's rank + 1 (BPE)."""
    charsmap: NDArray[np.uint32] | None = None
    """uint32 ``[units]``: the double-array trie of a precompiled normalizer of SentencePiece."""
    charsmap_text: NDArray[np.uint8] | None = None
    """uint8 ``[bytes]``: its replacements, each terminated by NUL."""
    token_rows: NDArray[np.uint32] | None = None
    """uint32 ``[tokens]``: the row of each token; by default its id."""
    token_weights: NDArray[np.float32] | None = None
    """float32 ``[tokens]``: the weight of each token in a mean; by default 1."""


@dataclass(frozen=True)
class Pooling:
    """How the tokens of a text become its vector."""

    tokens: int
    """Number of token ids."""
    max_tokens: int | None = None
    """The rest of a text is left out."""
    max_characters: int | None = None
    """The rest of a text is left out before it is split into tokens."""
    skip: int | None = None
    """Token that is left out of the mean, after `max_tokens` is applied."""
    normalize: bool = False
    """Divide the mean by its Euclidean norm."""

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """Parse the string ``pooling`` of the metadata; raise MetadataError if it is malformed."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or fields.keys() != cls.__annotations__.keys():
            raise _error(f"an object with the keys {', '.join(cls.__annotations__)}")
        for name in _SIZES:
            value, least = fields[name], 0 if name == "skip" else 1
            if value is None and name != "tokens":
                continue
            if type(value) is not int or not least <= value <= MAX_TOKENS:
                raise _error(f"{name} of {least} to {MAX_TOKENS:,}")
        if type(fields["normalize"]) is not bool:
            raise _error("normalize to be true or false")
        return cls(**fields)

    def serialize(self) -> str:
        """Return the string that `parse` reads."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, eq=False)
class TextModel:
    """Tokenizer and pooling of a static embedding model."""

    tensors: TextTensors
    pooling: Pooling

    def present(self) -> dict[str, NDArray[Any]]:
        """Return the tensors that the model has, by name."""
        return {name: array for name, array in self.tensors._asdict().items() if array is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(array.nbytes for array in self.present().values())


def _error(expected: str) -> MetadataError:
    return MetadataError(
        f"'pooling' is malformed, expected {expected}. The file is damaged; please compress the model again."
    )
