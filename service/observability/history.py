"""The last minutes of the server's counters, so that a page shows more than what it saw itself."""

from __future__ import annotations

from collections import deque
from time import time
from typing import Any

from service.observability.metrics import counts, durations
from service.scoreboard import Scoreboard

#: The routes that make up traffic: those that answer with vectors or words, not with figures.
ROUTES = ("/lookup", "/v1/lookup", "/v1/embeddings", "/neighbors")
#: Samples that are kept, one a second.
LENGTH = 300


class History:
    """Samples of the counters, which only grow: what happened between two is their difference.

    The counters are those of all workers, and each worker notes them: whichever answers knows the past.

    Parameters
    ----------
    scoreboard : Scoreboard
        Where the counters are.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._samples: deque[dict[str, Any]] = deque(maxlen=LENGTH)

    def note(self) -> None:
        """Keep a sample."""
        self._samples.append(self.now())

    def history(self) -> list[dict[str, Any]]:
        """Return the samples kept, the oldest first."""
        return list(self._samples)

    def now(self) -> dict[str, Any]:
        """Return a sample: the time, tokens, refusals, and requests by how long they took."""
        totals = self._scoreboard.totals()
        tokens = counts(totals, "smallfry_tokens_total")
        return {
            "time": time(),
            "found": tokens.get("found", 0),
            "unknown": tokens.get("unknown", 0),
            "rejected": sum(counts(totals, "smallfry_rejected_total").values()),
            "durations": durations(totals, ROUTES),
        }
