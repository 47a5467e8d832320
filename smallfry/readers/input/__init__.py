"""Bytes of an input: decompressed, taken from an archive, decoded, and the format they are in."""
