"""The ``smallfry-serve`` command, which ``python -m service`` runs too."""

import os
import signal
import sys


def handle_early_signals() -> None:
    """Exit with 0 on SIGTERM, and hold back SIGHUP, until the server handles them; call before long imports.

    Process 1 of a container gets only signals that have a handler. The image starts it with SIGTERM blocked,
    so that one sent earlier is delivered now.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def main() -> int:
    """Run the command line of this process and return the exit code."""
    handle_early_signals()
    from smallfry.startup import run

    return run("smallfry-serve", "service.cli")


if __name__ == "__main__":
    sys.exit(main())
