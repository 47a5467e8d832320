"""The crafted files: each module of the folder ``files`` makes one.

Run it to have them all written, to be tried on any other reader:

    python tests/attacks/catalog.py FOLDER
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Attack:
    """One crafted file.

    `opening` is the error by which it is refused wherever it is opened, None where that takes it for a file
    like any other; `verifying` is the error by which `smallfry.verify` refuses it.
    """

    name: str
    raw: bytes
    opening: str | None
    verifying: str


def attacks() -> list[Attack]:
    """Return all crafted files, by name."""
    return [_load(path) for path in sorted((HERE / "files").glob("*.py"))]


def _load(path: Path) -> Attack:
    spec = importlib.util.spec_from_file_location(f"attack_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    opening = getattr(module, "REFUSED_BY_OPEN", None)
    verifying = opening or module.REFUSED_BY_VERIFY
    return Attack(path.stem, module.raw(), None if opening is None else opening.__name__, verifying.__name__)


if __name__ == "__main__":
    sys.path.append(str(HERE.parent / "smallfry"))
    for attack in attacks():
        (Path(sys.argv[1]) / f"{attack.name}.sfq").write_bytes(attack.raw)
