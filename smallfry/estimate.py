"""The size of a table before it is made."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass

from smallfry.paging import Paging
from smallfry.quantization.options import Options, table_nbytes


@dataclass(frozen=True)
class Estimate:
    """The size of a table before it is made.

    Attributes
    ----------
    rows, dim, nbit : int
    options : Options
    paged : bool
    tensors : int
        Number of tensors that the rows are from.
    """

    rows: int
    dim: int
    nbit: int
    options: Options
    paged: bool = False
    tensors: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of the table, without the list of zero rows."""
        return table_nbytes(self.rows, self.dim, self.nbit, self.options, paged=self.paged)

    @property
    def padding(self) -> int:
        """Bytes of a paged table that belong to no row."""
        return Paging(self.rows, -(-self.dim * self.nbit // 8)).padding if self.paged else 0

    def check_space(self, folder: str | os.PathLike[str]) -> None:
        """Raise OSError unless the file, and temporary files of its size, fit into a folder."""
        needed, free = 2 * self.nbytes, shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"The table needs {needed:,} bytes there, half of them for temporary files, and {free:,} are "
                "free. Free some, or write to another folder",
                os.fspath(folder),
            )
