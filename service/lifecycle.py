"""The state of a server process between start and end."""

from __future__ import annotations

from dataclasses import dataclass


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
