"""Recent samples of the server's counters, one a second, for the dashboard."""

from __future__ import annotations

from collections import deque
from time import time
from typing import Any

from service.observability.metrics import counts, durations
from service.scoreboard import Scoreboard

#: The routes whose requests count as traffic.
ROUTES = ("/lookup", "/v1/lookup", "/v1/embeddings", "/neighbors")
#: Samples that are kept.
LENGTH = 300


class History:
    """The last `LENGTH` samples of the counters of all workers.

    Counters only grow, so two samples give what happened between them. Every worker records them, and any
    can serve the dashboard.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._samples: deque[dict[str, Any]] = deque(maxlen=LENGTH)

    def record(self) -> None:
        """Take a sample; called once a second."""
        self._samples.append(self.now())

    def samples(self) -> list[dict[str, Any]]:
        """Return the recorded samples, oldest first."""
        return list(self._samples)

    def now(self) -> dict[str, Any]:
        """Return a sample: time, tokens, rejections, and requests by duration."""
        totals = self._scoreboard.totals()
        tokens = counts(totals, "smallfry_tokens_total")
        return {
            "time": time(),
            "found": tokens.get("found", 0),
            "unknown": tokens.get("unknown", 0),
            "rejected": sum(counts(totals, "smallfry_rejected_total").values()),
            "durations": durations(totals, ROUTES),
        }
