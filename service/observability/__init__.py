"""Metrics, statistics, their history, logging, and tracing."""
