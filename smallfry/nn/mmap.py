"""The ``.sfq`` file that a module's codes are mapped from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from smallfry.errors import SfqError
from smallfry.sfq import file as sfq
from smallfry.table import Table


@dataclass(frozen=True)
class MappedFile:
    """A file, told by its digest, and the codes over the map of it.

    Attributes
    ----------
    path : Path
        Absolute, for processes that start elsewhere.
    digest : str
    codes : Tensor or None
        None on the way to another process, which maps the file for itself.
    """

    path: Path
    digest: str
    codes: Tensor | None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> tuple[MappedFile, Table]:
        """Map a file copy-on-write: what is written to its codes stays in this process."""
        file = sfq.map(path, copy_on_write=True)
        codes = torch.from_numpy(file.table.codes)
        return cls(Path(path).absolute(), file.header.digest, codes), file.table

    def without_codes(self) -> MappedFile:
        """Return what another process needs to map the file."""
        return replace(self, codes=None)

    def again(self) -> MappedFile:
        """Map the file in this process.

        Raises
        ------
        SfqError
            Another file has taken its place.
        """
        found, _ = MappedFile.open(self.path)
        if found.digest != self.digest:
            raise SfqError(f"{self.path} was replaced by another file while a process that needs it started")
        return found
