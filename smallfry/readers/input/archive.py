"""Files in a zip archive."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, BinaryIO, cast

from smallfry.errors import InputError
from smallfry.progress import Progress
from smallfry.readers.input.stream import InputStream
from smallfry.readers.listing import cut, listing
from smallfry.readers.options import ReadOptions

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_READ_BY_ZIPFILE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_READ_BY_STREAM = (12, 93, 95)  # bzip2, zstd and xz, whose data is as in a file of its own
_ENCRYPTED = 1
_LISTED = 250  # characters of a message that lists files


def is_zip(stream: InputStream) -> bool:
    """Return whether the stream is a zip archive."""
    return stream.peek(4) in _MAGIC


class Archive:
    """A zip archive. Directories, hidden files and those of ``__MACOSX`` are ignored.

    `stack` closes the files opened here.

    Attributes
    ----------
    name : str
    files : dict of ZipInfo
        The files by name.
    """

    def __init__(self, stream: InputStream, stack: ExitStack) -> None:
        self.name = stream.name
        self._stream = stream
        file = stream.seekable(stack)
        self._progress = stream.take_progress()
        with _archive_errors(self.name):
            self._zip = stack.enter_context(zipfile.ZipFile(file))
        self.files = {info.filename: info for info in self._zip.infolist() if not _is_ignored(info)}

    def is_read_as_npz(self, options: ReadOptions) -> bool:
        """Return whether the archive is read as one .npz file, not one of its files."""
        if options.format is None:
            is_npz = {name.endswith(".npy") for name in self.files} == {True}
        else:
            is_npz = options.format == "npz"
        return is_npz and options.member is None

    def open(self, name: str, *, show_progress: bool = False) -> InputStream:
        """Open a file by its full name. One of them shows its progress as that of the archive."""
        info = self.files[name]
        full_name = f"{self.name}:{cut(name, 100)}"
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{full_name} is encrypted. Please unzip it with its password.")
        if info.compress_type not in _READ_BY_ZIPFILE + _READ_BY_STREAM:
            raise InputError(
                f"{full_name} is compressed by method {info.compress_type} of zip, which is not supported. "
                "Please unzip it."
            )
        if info.compress_type in _READ_BY_STREAM:
            info = _stored(info)
        progress = self._progress if show_progress else None
        with _archive_errors(self.name):
            return _FileStream(self._zip.open(info), progress, full_name, info.file_size, self._stream)

    def choose(self, wanted: str | None) -> str:
        """Return the full name of the file `wanted`: its name or the end of its name; or of the only file."""
        self._check_kind()
        if wanted is None:
            if len(self.files) != 1:
                raise InputError(
                    f"{self.name} is a zip archive of {len(self.files):,} files. "
                    f"Please choose one with member= (--member): {self._listed(self.files)}."
                )
            return next(iter(self.files))
        names = (
            [name for name in self.files if name == wanted]
            or [name for name in self.files if name.endswith(f"/{wanted}")]
            or [name for name in self.files if name.endswith(wanted)]
        )
        if len(names) == 1:
            return names[0]
        found = f"{len(names):,} files" if names else "no file"
        raise InputError(
            f"{self.name} has {found} whose name ends with {cut(wanted, 60)!r}: "
            f"{self._listed(names or self.files)}."
        )

    def _check_kind(self) -> None:
        """Raise InputError for archives of other programs."""
        if not self.files:
            raise InputError(f"{self.name} is a zip archive without files, expected a file of vectors.")
        bases = {name.rpartition("/")[2] for name in self.files}
        if "data.pkl" in bases:
            raise InputError(
                f"{self.name} is a PyTorch checkpoint, whose pickle can run any code when loaded. "
                "Please save the matrix as .safetensors or .npy."
            )
        if {"config.json", "model.weights.h5"} <= bases:
            raise InputError(f"{self.name} is a Keras model. Please save the embedding's weights as .npy.")
        if "[Content_Types].xml" in bases:
            raise InputError(f"{self.name} is an Office document. Please save it as text (CSV).")

    def _listed(self, names: Iterable[str]) -> str:
        shown = [f"{cut(name, 70)} ({self.files[name].file_size:,} bytes)" for name in names]
        return listing(shown, _LISTED)


class _FileStream(InputStream):
    """A file of an archive. Its digest is the archive's."""

    def __init__(
        self, file: IO[bytes], progress: Progress | None, name: str, size: int, archive: InputStream
    ) -> None:
        self._archive = archive
        super().__init__(cast(BinaryIO, file), progress, name=name, total_bytes=size)

    def drain(self) -> None:
        super().drain()
        self._archive.drain()

    @property
    def sha256(self) -> str | None:
        return self._archive.sha256

    def _read(self, size: int) -> bytes:
        with _archive_errors(self._archive.name):
            return super()._read(size)


def _is_ignored(info: zipfile.ZipInfo) -> bool:
    *folders, base = info.filename.split("/")  # a directory ends in "/"
    return not base or "__MACOSX" in folders[:1] or any(part.startswith(".") for part in (*folders, base))


def _stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return the entry such that zipfile reads its compressed bytes."""
    raw = copy.copy(info)
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, info.compress_size
    raw.CRC = None  # type: ignore[assignment]  # of the decompressed bytes
    return raw


@contextmanager
def _archive_errors(name: str) -> Iterator[None]:
    """Raise InputError for errors of zipfile, its decompressors and seeks outside the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = cut(str(error), 200) or type(error).__name__
        if reason == "File is not a zip file":
            reason = "the directory at its end is missing"
        raise InputError(f"{name} is a damaged zip archive: {reason}. Please copy it again.") from None
