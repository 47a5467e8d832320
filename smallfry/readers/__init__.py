"""Read vectors and their tokens from the files that other tools write."""

from smallfry.readers.report import ReadReport
from smallfry.readers.source import FORMATS, VectorSource, open_vectors
from smallfry.vocabulary import PackedTokens

__all__ = ["FORMATS", "PackedTokens", "ReadReport", "VectorSource", "open_vectors"]
