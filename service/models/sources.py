"""Which files ``--embeddings`` stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from service.errors import ConfigError, InvalidValue
from smallfry import SfqError

SUFFIX = ".sfq"

NAME_RULE = "letters, digits and _.+- make a name, at most 128 and none of .+- first"

_NAME = re.compile(r"[\w][\w.+-]{0,127}")


class Sources:
    """The files and folders that the server was started with.

    Parameters
    ----------
    embeddings : iterable of str
        ``[name=]path`` each: a ``.sfq`` file, called by its stem where it has no name, or a folder of them.

    Raises
    ------
    ConfigError
        A name has a form that no URL could hold, or a folder was given one.
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
                self._files.append((_checked(name or path.stem), path))
            elif name:
                raise ConfigError(
                    f"{rest} is a folder; its files are served under their own names, not {name!r}"
                )
            else:
                self.folders.append(path)

    def files(self) -> dict[str, Path]:
        """Return the files by name, as the folders are now.

        Raises
        ------
        ConfigError
            A file does not exist, a name comes twice, or nothing was given.
        """
        found: dict[str, Path] = {}
        listed = list(self._files)
        for folder in self.folders:
            listed += [(_checked(path.stem), path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
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
        """Return the first folder.

        Raises
        ------
        InvalidValue
            There is none.
        """
        if not self.folders:
            raise InvalidValue("this server has no folder of models; start it with --embeddings FOLDER")
        return self.folders[0]

    def inside(self, path: str) -> Path:
        """Return the file of a path that a request names, relative to one of the folders.

        Raises
        ------
        InvalidValue
            There are no folders, or none of them holds such a file.
        """
        self.folder()
        for folder in self.folders:
            root = folder.resolve()
            try:
                file = (root / path).resolve()
            except (OSError, ValueError):
                break
            if file.is_relative_to(root) and file.is_file():
                return folder / path
        raise InvalidValue(f"there is no file {path!r} in the folders of this server", param="path")


def is_name(name: str) -> bool:
    """Say whether a model may be called so, by `NAME_RULE`."""
    return _NAME.fullmatch(name) is not None


def _checked(name: str) -> str:
    if not is_name(name):
        raise ConfigError(f"a model cannot be called {name!r}: {NAME_RULE}; give it another: NAME=PATH")
    return name


def reason(error: Exception) -> str:
    """Say why a file is refused without telling its path."""
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return str(error).removeprefix(f"{error.path}: ") if isinstance(error, SfqError) else str(error)
