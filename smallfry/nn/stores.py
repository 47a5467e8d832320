"""Open stores of this process, which modules and operators share."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

from smallfry import store as stores
from smallfry.errors import SfqError
from smallfry.store import Store

# (absolute path, digest) → store, as long as a module holds it.
_shared: WeakValueDictionary[tuple[str, str], Store] = WeakValueDictionary()

# Stores that a program uses without a module, which stay open.
_kept: dict[tuple[str, str], Store] = {}


def share(path: str | os.PathLike[str], digest: str | None = None) -> Store:
    """Return this process's store of a file.

    Raises
    ------
    SfqError
        The file is damaged, or its content does not have the digest.
    OSError
        The file cannot be opened.
    """
    path = Path(path).absolute()
    store = stores.open(path)
    if digest is not None and store.digest != digest:
        raise SfqError(
            f"{path} was replaced by another file: its digest is {store.digest}, expected {digest}. "
            "Please create the module again, or export the program again."
        )
    return _shared.setdefault((str(path), store.digest), store)


def find(path: str, digest: str) -> Store:
    """Return this process's store of a file, opened if it is not; errors as of `share`."""
    key = path, digest
    store = _shared.get(key)
    if store is None:
        store = _kept[key] = share(path, digest)
    return store
