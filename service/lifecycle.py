"""The state of a server process between start and end."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

#: Seconds for the end of the interpreter.
_EXIT = 0.3


@dataclass
class Lifecycle:
    """Shutdown state, set by the process and read by the application.

    Attributes
    ----------
    draining : bool
        The server is shutting down: ``/readyz`` is 503, requests are still served.
    closing : bool
        The process accepts no more connections and closes each after its next response.
    """

    draining: bool = False
    closing: bool = False
    _deadline: float = 0.0

    def drain(self, timeout: float) -> None:
        """Begin the shutdown, which has `timeout` seconds."""
        if not self.draining:
            self.draining, self._deadline = True, monotonic() + timeout

    def remaining(self) -> float:
        """Return the seconds that the shutdown has left, but for those in which the interpreter ends."""
        return max(0.1, self._deadline - monotonic() - _EXIT)
