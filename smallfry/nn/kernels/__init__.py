"""Lookup operators of packed tables, and their implementations in plain torch and in Triton."""
