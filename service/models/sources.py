"""The files that ``--embeddings`` names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from service.errors import ConfigError, InvalidValue
from smallfry import SfqError

SUFFIX = ".sfq"

NAME_RULE = "a name is 1 to 128 letters, digits and _.+-, and does not start with .+-"

_NAME = re.compile(r"[\w][\w.+-]{0,127}")


class Sources:
    """The files and folders that the server was started with.

    Each of `embeddings` is ``[name=]path``: a ``.sfq`` file, named by its stem by default, or a folder of
    them. `ConfigError` is raised if a name breaks `NAME_RULE` or a folder has a name, and by `files` if a
    file is missing, two files have one name, or there are no sources.
    """

    def __init__(self, embeddings: Iterable[str]) -> None:
        self._files: list[tuple[str, Path]] = []
        self.folders: list[Path] = []
        for item in embeddings:
            name, separator, rest = item.partition("=")
            if not separator or "/" in name:
                name, rest = "", item
            path = Path(rest)
            if not path.is_dir():
                self._files.append((check_name(name or path.stem), path))
            elif name:
                raise ConfigError(
                    f"{rest} is a folder; its files are served under their own names, not {name!r}"
                )
            else:
                self.folders.append(path)

    def files(self) -> dict[str, Path]:
        """Return the files by name, with the current files of the folders."""
        found: dict[str, Path] = {}
        listed = list(self._files)
        for folder in self.folders:
            listed += [(check_name(path.stem), path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
        for name, path in listed:
            if not path.exists():
                raise ConfigError(
                    f"{path} does not exist; --embeddings takes a {SUFFIX} file or a folder of them"
                )
            if name in found:
                raise ConfigError(
                    f"{found[name]} and {path} are both called {name!r}; give one of them a name: NAME={path}"
                )
            found[name] = path
        if not self._files and not self.folders:
            raise ConfigError("nothing to serve; give --embeddings PATH or set SMALLFRY_EMBEDDINGS")
        return found

    def folder(self) -> Path:
        """Return the first folder, which uploads are written to."""
        if not self.folders:
            raise InvalidValue("this server has no folder of models; start it with --embeddings FOLDER")
        return self.folders[0]

    def inside(self, path: str) -> Path:
        """Return the file at a path relative to one of the folders, and inside it."""
        self.folder()
        for folder in self.folders:
            root = folder.resolve()
            try:
                file = (root / path).resolve()
            except (OSError, ValueError):
                break
            if file.is_relative_to(root) and file.is_file():
                return folder / path
        raise InvalidValue(f"the folders of this server have no file {path!r}", param="path")


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
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return str(error).removeprefix(f"{error.path}: ") if isinstance(error, SfqError) else str(error)
