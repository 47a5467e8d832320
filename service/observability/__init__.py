"""Metrics, statistics, their history, and logging."""
