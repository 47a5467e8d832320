"""Quantization: from a float matrix to a table of 1 to 32 bits a value."""
