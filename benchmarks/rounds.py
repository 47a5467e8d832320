"""Fair timing: the sides take turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Requests of one side: medians over the rounds, and the lowest and highest round."""

    requests_per_second: float
    lowest: float
    highest: float
    p50_ms: float
    p99_ms: float


def take_turns(sides: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, Timing]:
    """Call each side for some seconds, round after round; a call is one request.

    Parameters
    ----------
    sides : mapping of str to callable
    rounds : int
    seconds : float
        Of each side in each round.
    """
    durations: dict[str, list[list[float]]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(rounds):
        for name, call in sides.items():
            durations[name].append(_repeat(call, seconds))
    return {name: _timing(of_rounds) for name, of_rounds in durations.items()}


def _repeat(call: Callable[[], object], seconds: float) -> list[float]:
    durations = []
    before = perf_counter()
    end = before + seconds
    while before < end:
        call()
        after = perf_counter()
        durations.append(after - before)
        before = after
    return durations


def _timing(rounds: list[list[float]]) -> Timing:
    rates = [len(durations) / sum(durations) for durations in rounds]
    p50, p99 = np.percentile(np.concatenate(rounds), [50, 99]) * 1e3
    return Timing(statistics.median(rates), min(rates), max(rates), float(p50), float(p99))
