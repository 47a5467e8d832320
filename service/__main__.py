"""The ``smallfry-serve`` command, which ``python -m service`` runs too."""

import os
import signal
import sys


def exit_on_sigterm() -> None:
    """Exit with 0 on SIGTERM until the server handles it; to be called before imports that take long.

    Process 1 of a container gets only signals that have a handler. The image starts it with SIGTERM blocked,
    so that one sent earlier is delivered now.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def main() -> int:
    """Run the command line of this process and return the exit code."""
    exit_on_sigterm()
    from smallfry.startup import run

    return run("smallfry-serve", "service.cli")


if __name__ == "__main__":
    sys.exit(main())
