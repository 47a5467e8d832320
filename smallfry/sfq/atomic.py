"""Replace a file atomically."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from smallfry.errors import InputError

Check = Callable[[Path], object]

_NEW_FILE_MODE = 0o666  # before the umask


def output_folder(output: str | os.PathLike[str]) -> Path:
    """Return the folder of a file to write; raise OSError if the file cannot be written there."""
    target = Path(os.path.realpath(output))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory, expected the file to write", os.fspath(output))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "Not a regular file, expected one to replace", os.fspath(output))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder to write to", os.fspath(target.parent))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "No permission to write to this folder", os.fspath(target.parent))
    return target.parent


def check_distinct(input: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Raise InputError if the output is the input, also through a symbolic or hard link."""
    if os.path.exists(input) and os.path.exists(output) and os.path.samefile(input, output):
        raise InputError(f"{os.fspath(output)} is both input and output. Please write to another file.")


@contextmanager
def replacing(
    path: str | os.PathLike[str], *, check: Check | None = None, follow_symlinks: bool = True
) -> Iterator[BinaryIO]:
    """Write a file that replaces `path` when the block ends without an exception.

    The bytes go to an unnamed file in the same folder if the system has those (Linux), so that even a killed
    process leaves nothing behind, otherwise to ``.smallfry.PID.RANDOM.tmp``. The file is fsynced, checked and
    renamed to `path`, and the folder is fsynced: after a crash `path` holds the old bytes or the new ones. A
    replaced file keeps its mode, and its owner and group as far as the system permits.

    Parameters
    ----------
    path : path
    check : callable, optional
        Gets a path under which the complete file can be read; an exception that it raises keeps the old file.
    follow_symlinks : bool
        Replace the file that a symbolic link points to, not the link.

    Raises
    ------
    OSError
        The file cannot be written, for example because the disk is full; `path` is unchanged.
    """
    target = Path(os.path.realpath(path) if follow_symlinks else path)
    try:
        with _temporary(target, check) as file:
            yield file
    except OSError as error:
        if error.errno is None:
            raise
        state = "what was there is unchanged" if target.exists() else "nothing was written"
        raise OSError(error.errno, f"{error.strerror}; {state}", os.fspath(path)) from error


@contextmanager
def _temporary(target: Path, check: Check | None) -> Iterator[BinaryIO]:
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    name = f".smallfry.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        descriptor = _open_unnamed(folder)
        unnamed = descriptor is not None
        if descriptor is None:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE, dir_fd=folder)
        source = f"/proc/self/fd/{descriptor}"
        try:
            with open(descriptor, "wb") as file:
                _keep_permissions(target, descriptor)
                yield file
                file.flush()
                os.fsync(descriptor)
                if check is not None:
                    check(Path(source) if unnamed else target.parent / name)
                if unnamed:
                    # link() cannot replace a file, rename() can: the file needs a name for an instant.
                    os.link(source, name, dst_dir_fd=folder, follow_symlinks=True)
            os.rename(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_unnamed(folder: int) -> int | None:
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.exists(f"/proc/self/fd/{folder}"):
        return None
    try:
        return os.open(".", os.O_WRONLY | flag, _NEW_FILE_MODE, dir_fd=folder)
    except OSError as error:
        # The errors of kernels and file systems without unnamed files.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise


def _keep_permissions(target: Path, descriptor: int) -> None:
    """Give a file the mode of the one that it replaces, also through a link, and its owner if permitted."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    for owner, group in ((-1, status.st_gid), (status.st_uid, -1)):
        with suppress(PermissionError):
            os.fchown(descriptor, owner, group)
    # After the owner, whose change may clear bits.
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
