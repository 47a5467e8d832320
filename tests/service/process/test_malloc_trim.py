"""Memory that large requests left behind."""

from __future__ import annotations

import pytest

from service.process import malloc_trim
from service.process.malloc_trim import MallocTrimmer

MB = 1 << 20


class Process:
    """A process of which an allocator holds what it does not use until it is told to trim."""

    def __init__(self) -> None:
        self.used = self.held = 50 * MB
        self.now = 0.0
        self.trims = 0

    def trim(self, _: int) -> None:
        self.trims += 1
        self.held = self.used


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()
    monkeypatch.setattr(malloc_trim, "_private", lambda: process.held)
    monkeypatch.setattr(malloc_trim, "monotonic", lambda: process.now)
    return process


def look(process: Process, reclaimer: MallocTrimmer, seconds: int) -> None:
    """Look once a second."""
    for _ in range(seconds):
        process.now += 1
        if reclaimer.due():
            reclaimer.reclaim()


@pytest.fixture
def reclaimer(process: Process, monkeypatch: pytest.MonkeyPatch) -> MallocTrimmer:
    reclaimer = MallocTrimmer()
    monkeypatch.setattr(reclaimer, "_trim", process.trim)
    return reclaimer


def test_what_is_free_is_given_back_within_seconds(process: Process, reclaimer: MallocTrimmer) -> None:
    process.held = 150 * MB
    look(process, reclaimer, 2)
    assert process.held == 50 * MB
    look(process, reclaimer, 100)
    assert process.trims == 1


def test_what_is_freed_after_a_look_in_vain_is_given_back(process: Process, reclaimer: MallocTrimmer) -> None:
    process.used = process.held = 150 * MB
    look(process, reclaimer, 2)
    assert process.held == 150 * MB
    process.used = 50 * MB
    look(process, reclaimer, 20)
    assert process.held == 50 * MB


def test_a_process_that_needs_its_memory_is_looked_at_ever_less(
    process: Process, reclaimer: MallocTrimmer
) -> None:
    process.used = process.held = 150 * MB
    look(process, reclaimer, 600)
    assert process.trims < 15
