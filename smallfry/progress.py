"""The callback that reports how far a long operation is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, the units done (bytes or rows), and the total (0 if unknown)."""
