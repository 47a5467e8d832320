"""The files that ``--embeddings`` names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from service.errors import ConfigError, Conflict, InvalidValue
from smallfry import SfqError

SUFFIX = ".sfq"

NAME_RULE = "a name is 1 to 128 letters, digits and _.+-, and does not start with .+-"

_NAME = re.compile(r"[\w][\w.+-]{0,127}")

#: Why files cannot be served, by their path or URL.
Failures = dict[str, str]


class Sources:
    """The files and folders that the server was started with.

    Each of `embeddings` is ``[name=]path``: a ``.sfq`` file, named by its stem by default, or a folder of
    them. `ConfigError` is raised if a given name breaks `NAME_RULE` or is a folder's, or two existing files
    have one name.
    """

    def __init__(self, embeddings: Iterable[str]) -> None:
        self._items: list[tuple[str, Path]] = []
        names: dict[str, Path] = {}
        for item in embeddings:
            name, separator, rest = item.partition("=")
            if not separator or "/" in name:
                name, rest = "", item
            elif not name or not rest:
                raise ConfigError(f"{item!r} has an empty name or path; --embeddings takes [NAME=]PATH")
            path = Path(rest)
            if name and os.path.isdir(path):
                raise ConfigError(
                    f"{rest} is a folder; its files are served under their own names, not {name!r}"
                )
            if name:
                check_name(name)
            if name or os.path.isfile(path):
                other = names.setdefault(name or path.stem, path)
                if other is not path:
                    raise ConfigError(
                        f"{other} and {path} are both called {name or path.stem!r}; "
                        f"give one of them a name: NAME={path}"
                    )
            self._items.append((name, path))

    @property
    def folders(self) -> list[Path]:
        """The folders among the sources."""
        return [path for name, path in self._items if not name and os.path.isdir(path)]

    def files(self) -> tuple[dict[str, Path], Failures]:
        """Return the files by name, with the current files of the folders, and those without a usable name.

        Hidden files in folders are skipped. `ConfigError` is raised if there are no sources.
        """
        if not self._items:
            raise ConfigError("nothing to serve; give --embeddings PATH or set SMALLFRY_EMBEDDINGS")
        folders = self.folders
        listed = [(name or path.stem, path) for name, path in self._items if path not in folders]
        failed: Failures = {}
        for folder in folders:
            try:
                entries = sorted(os.listdir(folder))
            except OSError as error:
                failed[str(folder)] = reason(error)
                continue
            paths = [folder / entry for entry in entries if entry.endswith(SUFFIX) and entry[0] != "."]
            listed += [(path.stem, path) for path in paths]
        files: dict[str, Path] = {}
        for name, path in listed:
            if not is_name(name):
                failed[str(path)] = f"a model cannot be called {name!r}: {NAME_RULE}; rename the file"
            elif files.setdefault(name, path) != path:
                failed[str(path)] = f"another file is called {name!r}, too; rename one of them"
        return files, failed

    def names(self) -> list[str]:
        """Return the names of the models."""
        return list(self.files()[0])

    def upload(self, name: str) -> Path:
        """Return the file that an upload of a model replaces or creates: ``NAME.sfq`` in one of the folders.

        Raises
        ------
        InvalidValue
            There is no folder.
        Conflict
            The model's file is outside the folders or has another name, or the new one would replace another
            model's, on a file system that ignores case.
        """
        folders = self._folders()
        files, _ = self.files()
        path = files.get(name, folders[0] / f"{name}{SUFFIX}")
        inside = os.path.realpath(path.parent) in map(os.path.realpath, folders)
        if not inside or path.name != f"{name}{SUFFIX}":
            raise Conflict(
                f"--embeddings names a file for {name!r}, and an upload replaces only {name}{SUFFIX} in one "
                "of the folders; use another name"
            )
        # Listed again: a concurrent upload may have created the file since.
        if name not in files and os.path.lexists(path) and name not in self.files()[0]:
            raise Conflict(f"{path.name} is the file of another model on this file system; use another name")
        return path

    def inside(self, path: str) -> Path:
        """Return the file at a path relative to one of the folders, and inside it."""
        for folder in self._folders():
            root = folder.resolve()
            try:
                file = (root / path).resolve()
                if file.is_relative_to(root) and file.is_file():
                    return folder / path
            except (OSError, ValueError):
                break
        raise InvalidValue(f"the folders of this server have no file {path!r}", param="path")

    def _folders(self) -> list[Path]:
        """Return the folders; `InvalidValue` is raised if there are none."""
        folders = self.folders
        if not folders:
            raise InvalidValue("this server has no folder of models; start it with --embeddings FOLDER")
        return folders


def is_name(name: str) -> bool:
    """Whether a name of a model follows `NAME_RULE`."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, path: str = "PATH") -> str:
    """Return a name of a model, or raise `ConfigError` if it breaks `NAME_RULE`."""
    if not is_name(name):
        raise ConfigError(f"a model cannot be called {name!r}: {NAME_RULE}; choose another: NAME={path}")
    return name


def reason(error: Exception) -> str:
    """Return why a file was rejected, without its path."""
    if isinstance(error, FileNotFoundError):
        if error.filename is not None and os.path.islink(error.filename):
            return "the link points to a file that does not exist"
        return f"the file does not exist; --embeddings takes a {SUFFIX} file or a folder of them"
    if isinstance(error, PermissionError):
        return f"{error.strerror}; the server reads it as user {os.geteuid()}"
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return str(error).removeprefix(f"{error.path}: ") if isinstance(error, SfqError) else str(error)
