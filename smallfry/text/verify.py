"""Verify the tables of a tokenizer, which encoding checks only where it reads them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import TokenizerError
from smallfry.text.characters import BLOCK, TEXT_SHIFT
from smallfry.text.merges import find_merges
from smallfry.text.model import TextTensors

_LEAF = np.uint32(1 << 31)


def verify_tables(tensors: TextTensors, tokens: int) -> None:
    """Check the tries, the characters and the merges of a tokenizer.

    Parameters
    ----------
    tensors : TextTensors
    tokens : int
        Number of token ids.

    Raises
    ------
    TokenizerError
        A token, a block or a replacement does not exist, a replacement is not UTF-8, or the index does not
        lead to a merge.
    """
    _verify_trie("token_trie", tensors.token_trie, tokens)
    if tensors.charsmap is not None and tensors.charsmap_text is not None:
        _verify_trie("charsmap", tensors.charsmap, len(tensors.charsmap_text))
    _verify_characters(tensors)
    if tensors.token_merges is not None and tensors.merge_index is not None:
        _verify_merges(tensors.token_merges, tensors.merge_index, tokens)


def _verify_trie(name: str, units: NDArray[np.uint32], limit: int) -> None:
    values = units[units >= _LEAF] - _LEAF
    if len(values) and int(values.max()) >= limit:
        raise _error(f"{name} has the value {values.max()}, expected less than {limit:,}")


def _verify_characters(tensors: TextTensors) -> None:
    entries, text = tensors.characters, tensors.character_text.tobytes()
    blocks = len(entries) // BLOCK
    if len(entries) % BLOCK or int(tensors.character_blocks.max()) >= blocks:
        raise _error(
            f"characters has {len(entries):,} entries, and character_blocks names block "
            f"{tensors.character_blocks.max()}, expected blocks of {BLOCK} that exist"
        )
    for at in np.unique(entries >> TEXT_SHIFT).tolist():
        if at == 0:
            continue
        end = at + text[at - 1] if at <= len(text) else None
        try:
            if end is None or end > len(text):
                raise _error(f"character_text has {len(text):,} bytes, and a replacement starts at {at - 1}")
            text[at:end].decode()
        except UnicodeDecodeError:
            raise _error(f"the replacement at byte {at - 1} of character_text is not UTF-8") from None


def _verify_merges(merges: NDArray[np.uint32], index: NDArray[np.uint32], tokens: int) -> None:
    if not len(index) or len(index) & (len(index) - 1):
        raise _error(f"merge_index has {len(index):,} slots, expected a power of two")
    wrong = np.flatnonzero((merges >= tokens).any(axis=1))
    if len(wrong):
        raise _error(f"merge {wrong[0]} is {merges[wrong[0]].tolist()}, and there are {tokens:,} tokens")
    wrong = np.flatnonzero(find_merges(merges, index) != np.arange(len(merges)))
    if len(wrong):
        raise _error(f"merge_index does not lead to merge {wrong[0]}")


def _error(reason: str) -> TokenizerError:
    return TokenizerError(f"{reason}. The file is damaged.")
