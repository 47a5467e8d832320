"""Use every ``.sfq`` file of a folder in every way, in a process with little memory.

Prints one JSON object: for each file the error of each use (null if there was none), the seconds taken, and
the bytes that each use took at its peak.

    python -m tests.attacks.usage FOLDER
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import smallfry
from service.app import create_app
from service.config import Config
from service.process.main import banner
from service.server import Server
from smallfry import cli, kernels
from smallfry.errors import SmallfryError
from smallfry.readers import open_vectors
from smallfry.sfq.verify import verify
from tests.helpers.memory import growing

MEMORY = 2 << 30
TEXTS = ["ab cd ba", "a" * 10_000, "abcd" * 3000, "é日😀\0\u0301 " * 100, ""]
TOKENS = ["a", "b", "c", "d", "", "x", "a" * (1 << 14), "\0", "\ud800"]
#: Rows of which vectors are taken.
ROWS = 16


def use(path: Path, folder: Path) -> dict[str, Any]:
    """Return the error of each use, None if there was none, the total seconds, and the bytes of each use."""
    begin = perf_counter()
    uses: dict[str, Callable[[], object]] = {
        "open": lambda: smallfry.open(path),
        "verify": lambda: verify(path),
        "compress": lambda: list(open_vectors(path).chunks()),
    }
    if kernels.native:
        uses |= {f"smallfry {' '.join(command)}": partial(run, command, path, folder) for command in COMMANDS}
    if attempt(uses["open"]) is None:
        store = smallfry.open(path)
        ids = np.arange(min(len(store), ROWS))
        uses |= {
            "rows": lambda: store.rows(ids),
            "codes": lambda: store.codes(ids),
            "lookup": lambda: store.lookup(TOKENS),
            "lookup_mean": lambda: store.lookup(TOKENS, oov="mean"),
            "contains": lambda: [token in store for token in TOKENS],
            "tokens": lambda: [None for _ in store],
            "neighbors": lambda: store.neighbors(0, 1000),
            "bytes": lambda: (store.nbytes, store.baseline_nbytes),
        }
        if store.has_tokenizer:
            uses |= {
                "encoder": store.encoder,
                "encode": lambda: store.encoder().encode(TEXTS, threads=2),
                "token_ids": lambda: store.encoder().token_ids(TEXTS),
            }
        if attempt(uses.get("encoder", int)) is None:
            uses["start"] = lambda: start(path)
    outcome: dict[str, Any] = {"memory": {}}
    for name, call in uses.items():
        with growing() as growth:
            outcome[name] = attempt(call)
        outcome["memory"][name] = growth.peak
    outcome["seconds"] = perf_counter() - begin
    return outcome


#: Commands, each before the file.
COMMANDS = (
    ("info",),
    ("info", "--json"),
    ("verify",),
    ("lookup", "--oov", "mean"),
    ("lookup", "--json", "--ids"),
    ("lookup", "--packed", "--ids"),
    ("neighbors", "-k", "1000", "--ids"),
    ("neighbors", "-k", "1000", "--json", "--ids"),
    ("embed",),
    ("export", "-o", "-"),
    ("export", "-o", "vectors.npy"),
    ("export", "-o", "vectors.vec"),
)


def run(command: tuple[str, ...], path: Path, folder: Path) -> None:
    """Run a command with little output."""
    arguments = [str(folder / word) if word.startswith("vectors") else word for word in command]
    tokens = ["0", "1"] if command[0] in ("lookup", "neighbors", "embed") else []
    with open(os.devnull, "w") as output, redirect_stdout(output), redirect_stderr(output):
        cli.main([*arguments, str(path), *tokens])


def start(path: Path) -> None:
    """Do what the start of a server does with a file."""
    server = Server.open(Config(embeddings=(str(path),), device="cpu"))
    create_app(server)
    banner(server.models, "http://localhost", needs_key=False)


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
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {path.stem: use(path, Path(folder)) for path in sorted(Path(sys.argv[1]).glob("*.sfq"))}
    json.dump(outcomes, sys.stdout)
