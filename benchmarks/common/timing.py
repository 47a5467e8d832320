"""Fair timing: the sides take turns, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Requests of one side: medians over the rounds, and the lowest and highest round."""

    requests_per_second: float
    lowest: float
    highest: float
    p50_ms: float
    p99_ms: float
    round_medians: tuple[float, ...]
    """Median seconds of a request in each round; the n-th rounds of all sides ran next to each other."""


def take_turns(
    sides: Mapping[str, Callable[..., object]],
    rounds: int,
    seconds: float,
    prepare: Callable[[], tuple[Any, ...]] = tuple,
) -> dict[str, Timing]:
    """Call each side repeatedly, round after round; one call is one request.

    Parameters
    ----------
    sides : mapping of str to callable
    rounds : int
    seconds : float
        Time of each side in each round; a round has at least one call.
    prepare : callable, optional
        Makes the arguments of each call. The time that it takes is not counted.
    """
    durations: dict[str, list[list[float]]] = {name: [] for name in sides}
    for call in sides.values():
        call(*prepare())
    for _ in range(rounds):
        for name, call in sides.items():
            durations[name].append(_repeat(call, seconds, prepare))
    return {name: _timing(of_rounds) for name, of_rounds in durations.items()}


def _repeat(
    call: Callable[..., object], seconds: float, prepare: Callable[[], tuple[Any, ...]]
) -> list[float]:
    durations: list[float] = []
    end = perf_counter() + seconds
    while not durations or perf_counter() < end:
        arguments = prepare()
        before = perf_counter()
        call(*arguments)
        durations.append(perf_counter() - before)
    return durations


def _timing(rounds: list[list[float]]) -> Timing:
    rates = [len(durations) / sum(durations) for durations in rounds]
    medians = tuple(map(statistics.median, rounds))
    p50, p99 = np.percentile(np.concatenate(rounds), [50, 99]) * 1e3
    return Timing(statistics.median(rates), min(rates), max(rates), float(p50), float(p99), medians)
