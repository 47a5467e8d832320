"""Benchmarks of the library and its server; each program is started from the root with ``python -m``."""
