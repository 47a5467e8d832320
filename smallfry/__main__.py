"""``python -m smallfry`` is the ``smallfry`` command."""

import sys

from smallfry.cli import main

if __name__ == "__main__":
    sys.exit(main())
