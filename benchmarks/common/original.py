"""The original project's module, from a checkout of github.com/HazyResearch/smallfry."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _NumPy(ModuleType):
    """NumPy as before 1.24: with ``np.float``, and with float64 results of ``max``."""

    float = float

    @staticmethod
    def max(array: NDArray[np.float32]) -> float:
        """Return the largest value as float64."""
        return float(np.max(array))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(np, name)


def load_original(checkout: Path) -> type[Any]:
    """Return ``QuantEmbedding`` of the original project.

    Its modules import each other from a package of the same name as this one: ``sys.modules`` holds theirs
    while they are loaded.
    """
    folder = checkout / "src" / "smallfry"
    main = folder / "quant_embedding.py"
    if not main.is_file():
        raise SystemExit(f"{checkout} is not a checkout of HazyResearch/smallfry: {main} is missing")
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "smallfry"}
    package = sys.modules["smallfry"] = ModuleType("smallfry")
    try:
        for name in ("utils", "compress", "quant_embedding"):
            setattr(package, name, _load(folder / f"{name}.py"))
    finally:
        del sys.modules["smallfry"]
        sys.modules.update(ours)
    package.compress.np = _NumPy("numpy")
    logging.getLogger().setLevel(logging.ERROR)
    original: type[Any] = package.quant_embedding.QuantEmbedding
    return original


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"original_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
