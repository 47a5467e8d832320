"""Start a command: Ctrl-C can interrupt its imports, and its standard streams can be closed."""

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def run(name: str, module: str) -> int:
    """Run ``main`` of a module as the command `name`; return its exit code, 130 after Ctrl-C."""
    try:
        _replace_closed_streams()
        with importing(name):
            main = importlib.import_module(module).main
        code: int = main()
        return code
    except KeyboardInterrupt:
        return _interrupted(name)
    finally:
        # Ctrl-C during the exit of the interpreter would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def importing(name: str) -> Iterator[None]:
    """Exit the command `name` at Ctrl-C in the block, which only imports modules.

    KeyboardInterrupt is no way out: NumPy's import turns it into an ImportError.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        os._exit(_interrupted(name))

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a background job of a script
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(name: str) -> int:
    with suppress(OSError):
        os.write(2, f"{name}: interrupted\n".encode())
    return 130


def _replace_closed_streams() -> None:
    """Open the closed ones of descriptors 0, 1 and 2, which the next opened files would get otherwise.

    `smallfry.console` reports a closed standard input, writing to standard output fails, and errors are
    discarded.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w")
