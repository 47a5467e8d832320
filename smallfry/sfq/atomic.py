"""A file that is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# A new file's mode before the umask, as the shell gives it.
_MODE = 0o666


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` when the block ends without an exception.

    The bytes go to a nameless file in the same folder where the system has those (Linux), so that even a
    killed process leaves nothing behind, and to ``.smallfry.PID.RANDOM.tmp`` elsewhere. They are fsynced,
    moved to `path`, and the folder is fsynced: after a crash `path` holds the old bytes or the new ones.
    A symbolic link is followed. The permissions of a file that is replaced are kept.

    Raises
    ------
    OSError
        When the file cannot be written (a full disk, say); what was at `path` is unchanged.
    """
    target = Path(os.path.realpath(path))
    try:
        with _temporary(target) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is None:
            raise
        state = "what was there is unchanged" if target.exists() else "nothing was written"
        raise OSError(error.errno, f"{error.strerror}; {state}", os.fspath(path)) from error


@contextmanager
def _temporary(target: Path) -> Iterator[BinaryIO]:
    """Yield a file that is moved to `target` when the block ends well, and gone otherwise."""
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    name = f".smallfry.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        descriptor = _open_nameless(folder)
        nameless = descriptor is not None
        if descriptor is None:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                _keep_mode(target, descriptor)
                yield file
                if nameless:
                    # link() cannot replace a file, rename() can: a name is needed for an instant.
                    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)
            os.rename(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _remove(name, folder)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_nameless(folder: int) -> int | None:
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.exists(f"/proc/self/fd/{folder}"):
        return None
    try:
        return os.open(".", os.O_WRONLY | flag, _MODE, dir_fd=folder)
    except OSError as error:
        # What kernels and file systems without nameless files answer.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return None
        raise


def _keep_mode(target: Path, descriptor: int) -> None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    os.fchmod(descriptor, stat.S_IMODE(mode))


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
