"""Use every ``.sfq`` file of a folder in every way, in a process with little memory.

Prints one JSON object: for each file the error of each use (null if there was none) and the seconds taken.

    python -m tests.attacks.usage FOLDER
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import smallfry
from smallfry.errors import SmallfryError
from smallfry.readers import open_vectors
from smallfry.sfq.verify import verify

MEMORY = 2 << 30
TOKENS = ["a", "b", "c", "d", "", "x", "a" * (1 << 14), "\0", "\ud800"]


def use(path: Path) -> dict[str, Any]:
    """Return the error of each use, None if there was none, and the total seconds."""
    begin = perf_counter()
    outcome: dict[str, Any] = {
        "open": attempt(lambda: smallfry.open(path)),
        "verify": attempt(lambda: verify(path)),
        "compress": attempt(lambda: list(open_vectors(path).chunks())),
    }
    if outcome["open"] is None:
        store = smallfry.open(path)
        ids = np.arange(len(store))
        uses: dict[str, Callable[[], object]] = {
            "rows": lambda: store.rows(ids),
            "codes": lambda: store.codes(ids),
            "lookup": lambda: store.lookup(TOKENS),
            "lookup_mean": lambda: store.lookup(TOKENS, oov="mean"),
            "contains": lambda: [token in store for token in TOKENS],
            "tokens": lambda: list(store),
            "neighbors": lambda: store.neighbors(0),
            "bytes": lambda: (store.nbytes, store.baseline_nbytes),
        }
        outcome |= {name: attempt(call) for name, call in uses.items()}
    outcome["seconds"] = perf_counter() - begin
    return outcome


def attempt(call: Callable[[], object]) -> str | None:
    """Return the name of the smallfry error that a call raises; any other error ends the process."""
    try:
        with np.errstate(all="ignore"):
            call()
    except SmallfryError as error:
        return type(error).__name__
    return None


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    json.dump({path.stem: use(path) for path in sorted(Path(sys.argv[1]).glob("*.sfq"))}, sys.stdout)
