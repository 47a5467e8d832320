"""Verification of files before they are served."""

from __future__ import annotations

from copy import copy
from threading import Lock

from smallfry import SfqError
from smallfry.sfq.file import SfqFile
from smallfry.sfq.verify import verify_file

#: Results that are kept.
_KEPT = 10_000


class Verifier:
    """Verifies files one at a time, and each version of a file once, however often it is reloaded."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._results: dict[tuple[int, ...], SfqError | None] = {}

    def check(self, file: SfqFile) -> None:
        """Raise `SfqError` if a file violates a rule of the format."""
        with self._lock:
            if file.stamp not in self._results:
                if len(self._results) >= _KEPT:
                    self._results.clear()
                self._results[file.stamp] = _verify(file)
            error = self._results[file.stamp]
        if error is not None:
            raise copy(error)


def _verify(file: SfqFile) -> SfqError | None:
    try:
        verify_file(file)
    except SfqError as error:
        return copy(error)  # without its traceback, which would keep the file mapped
    return None
