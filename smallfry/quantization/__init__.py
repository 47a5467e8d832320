"""Quantization: from a matrix to a table of few bits a value."""
