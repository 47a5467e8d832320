"""Processes: the server, its workers, and what they share."""
