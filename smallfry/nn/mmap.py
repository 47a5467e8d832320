"""Memory-mapped ``.sfq`` files of modules."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smallfry.errors import SfqError
from smallfry.sfq import file as sfq
from smallfry.table import Table


@dataclass(frozen=True)
class MappedFile:
    """A memory-mapped file and its codes."""

    path: Path
    """Absolute, because the working directory can change."""
    digest: str
    codes: Tensor | None
    """None in a pickle for another process, which maps the file itself."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> tuple[MappedFile, Table]:
        """Map a file copy-on-write: writes to its codes stay in this process."""
        file = sfq.map(path, copy_on_write=True)
        # Inference tensors count no writes, and PackedModule.mapped depends on the count.
        with torch.inference_mode(False):
            codes = torch.from_numpy(file.table.codes)
        return cls(Path(path).absolute(), file.header.digest, codes), file.table

    def reopen(self) -> MappedFile:
        """Map the file in this process; raise SfqError if it was replaced."""
        file, _ = MappedFile.open(self.path)
        if file.digest != self.digest:
            raise SfqError(f"{self.path} was replaced by another file after it was mapped")
        return file
