"""Compression methods, their measures and their scores on tasks."""
