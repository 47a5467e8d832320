"""Tokens and texts that examples of requests show."""

from __future__ import annotations

import numpy as np

from smallfry.errors import TokenTableError
from smallfry.store import Store

#: For models with a tokenizer.
TEXTS = ("the cat sat on the mat", "a dog barks")
#: Tokens that an example needs at most.
_EXAMPLES = 3
#: The first rows, among which they are.
_ROWS = 1024
#: Bytes of the longest.
_LONGEST = 64
#: Characters of those that are preferred.
_SHORT = 16
#: Tokens that are looked up, which reads a page of the index each.
_PROBED = 16


def examples(store: Store) -> list[str]:
    """Return a few tokens that a lookup finds, preferably short words of nonzero rows.

    There are none without a vocabulary, or if it is damaged.
    """
    vocabulary = store.vocabulary
    if vocabulary is None:
        return []
    rows = np.arange(min(len(store), _ROWS))
    zero = set(store.table.zero_rows[:_ROWS].tolist())
    try:
        tokens = {row: vocabulary.token(row) for row in rows[vocabulary.lengths(rows) <= _LONGEST].tolist()}

        def rank(row: int) -> tuple[bool, bool]:
            return row in zero, not (tokens[row].isalpha() and len(tokens[row]) <= _SHORT)

        best = sorted(tokens, key=rank)[:_PROBED]
        found = vocabulary.find([tokens[row] for row in best]).tolist()
    except TokenTableError:
        return []
    return [tokens[row] for row, at in zip(best, found, strict=True) if row == at][:_EXAMPLES]
