"""Trimming the heap after large requests."""

import pytest

from service.process import malloc_trim
from service.process.malloc_trim import MallocTrimmer

MB = 1 << 20


class Process:
    """A process whose allocator holds freed memory until it is trimmed."""

    def __init__(self):
        self.used = self.held = 50 * MB
        self.now = 0.0
        self.trims = 0

    def trim(self, _):
        self.trims += 1
        self.held = self.used


@pytest.fixture
def process(monkeypatch):
    process = Process()
    monkeypatch.setattr(malloc_trim, "_private_bytes", lambda: process.held)
    monkeypatch.setattr(malloc_trim, "monotonic", lambda: process.now)
    return process


def run(process, trimmer, seconds):
    """Check once a second."""
    for _ in range(seconds):
        process.now += 1
        if trimmer.is_due():
            trimmer.trim()


@pytest.fixture
def trimmer(process, monkeypatch):
    trimmer = MallocTrimmer()
    monkeypatch.setattr(trimmer, "_malloc_trim", process.trim)
    return trimmer


def test_freed_memory_is_returned_within_seconds(process, trimmer):
    process.held = 150 * MB
    run(process, trimmer, 2)
    assert process.held == 50 * MB
    run(process, trimmer, 100)
    assert process.trims == 1


def test_memory_freed_after_a_vain_trim_is_returned_later(process, trimmer):
    process.used = process.held = 150 * MB
    run(process, trimmer, 2)
    assert process.held == 150 * MB
    process.used = 50 * MB
    run(process, trimmer, 20)
    assert process.held == 50 * MB


def test_the_pause_grows_while_trims_free_nothing(process, trimmer):
    process.used = process.held = 150 * MB
    run(process, trimmer, 600)
    assert process.trims < 15
