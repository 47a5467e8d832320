"""The ``smallfry-serve`` command, which ``python -m service`` runs too."""

import sys

from smallfry.startup import run


def main() -> int:
    """Run the command line of this process and return the exit code."""
    return run("smallfry-serve", "service.cli")


if __name__ == "__main__":
    sys.exit(main())
