"""Helpers that several benchmarks share: data, processes, timing and tables of results."""
