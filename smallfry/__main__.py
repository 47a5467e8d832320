"""The ``smallfry`` command, which ``python -m smallfry`` runs too."""

import sys

from smallfry.startup import run


def main() -> int:
    """Run the command line of this process and return the exit code."""
    return run("smallfry", "smallfry.cli")


if __name__ == "__main__":
    sys.exit(main())
