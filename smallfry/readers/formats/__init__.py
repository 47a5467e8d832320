"""Readers of each format: text, binary records and matrices."""
