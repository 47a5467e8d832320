"""The command line of the server: ``smallfry-serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# The server multiplies no matrices; this saves each process OpenBLAS buffers and threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from service.config import load
from service.errors import ConfigError
from smallfry import SmallfryError, __version__, console
from smallfry.startup import importing


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; return the exit code: 0, 1 if the server cannot start, 2 for a wrong option."""
    try:
        config = load(sys.argv[1:] if arguments is None else arguments, os.environ, __version__)
    except ConfigError as error:
        console.note(f"smallfry-serve: {console.sentence(error)}")
        return 2
    try:
        with importing("smallfry-serve"):
            from service.process.main import serve
    except ModuleNotFoundError as error:
        console.note(f"smallfry-serve: {error}; install the server: pip install 'smallfry[server]'")
        return 1
    try:
        return serve(config, lambda lines: console.write(f"{lines}\n"))
    except ConfigError as error:
        for message in error.args:
            console.note(f"smallfry-serve: {console.printable(message)}")
        return 1
    except (SmallfryError, OSError, MemoryError) as error:
        console.note(f"smallfry-serve: {console.sentence(error)}")
        return 1
