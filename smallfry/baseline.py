"""What a table would take without smallfry: a float32 matrix and a Python dict from token to row."""

from __future__ import annotations

import sys

from smallfry.vocabulary import Vocabulary

_SAMPLE = 1000


def float32_nbytes(rows: int, dim: int) -> int:
    """Bytes of the float32 matrix."""
    return 4 * rows * dim


def dict_nbytes(vocabulary: Vocabulary) -> int:
    """Estimate the bytes of ``dict[str, int]`` over the tokens, as CPython 3.11 and later lay it out.

    The hash table has the least power of two ``s`` of slots with ``2 s / 3`` not below the number of tokens;
    each slot takes 1, 2 or 4 bytes (up to 2**7, 2**15, more slots), each of the ``2 s / 3`` entries 16. A
    token takes ``sys.getsizeof`` rounded up to the allocator's 16 bytes, the mean of a sample of 1,000 spread
    over the rows; its row number takes 32.
    """
    rows = len(vocabulary)
    slots = 8
    while 2 * slots // 3 < rows:
        slots *= 2
    slot_bytes = 1 if slots <= 2**7 else 2 if slots <= 2**15 else 4
    sample = [vocabulary.token(row) for row in range(0, rows, -(-rows // _SAMPLE))]
    token_bytes = sum(-(-sys.getsizeof(token) // 16) * 16 for token in sample) / len(sample)
    return slots * slot_bytes + 2 * slots // 3 * 16 + round(rows * (token_bytes + 32))
