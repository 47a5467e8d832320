"""Options of reading a file of vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from smallfry.errors import InputError
from smallfry.readers.input.encoding import check_encoding


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading a file of vectors; `smallfry.readers.open_vectors` describes each."""

    format: str | None = None
    words: str | os.PathLike[str] | Literal[False] | None = None
    tensor: str | None = None
    member: str | None = None
    encoding: str | None = None
    keep: str | os.PathLike[str] | Iterable[str] | None = None
    limit: int | None = None
    strict: bool = False
    skip_bad_lines: bool = False
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}, expected 1 or more.")
        if self.encoding is not None:
            check_encoding(self.encoding)
