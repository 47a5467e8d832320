"""The hot functions, native where the compiled module is there, NumPy otherwise.

Both have the same names, arguments and results, byte for byte. ``SMALLFRY_NATIVE=0`` picks NumPy,
``SMALLFRY_SIMD=scalar|avx2|avx512`` the native instruction set, ``SMALLFRY_THREADS`` the number of threads.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar, cast

from smallfry.errors import InputError
from smallfry.kernels.numpy import codebook as _codebook
from smallfry.kernels.numpy import decode as _decode
from smallfry.kernels.numpy import neighbors as _neighbors
from smallfry.kernels.numpy import quantize as _quantize
from smallfry.kernels.numpy import text as _text
from smallfry.kernels.numpy import tokens as _tokens

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def _load() -> ModuleType | None:
    if os.environ.get("SMALLFRY_NATIVE") == "0":
        return None
    try:
        return importlib.import_module("smallfry._native")
    except ImportError:
        return None


_native = _load()
_announced = False

native: bool = _native is not None


def _announce() -> None:
    global _announced
    if not _announced:
        _announced = True
        warnings.warn(
            "smallfry runs without its native module: results are the same, but many times slower. "
            "Install a C++17 compiler and reinstall smallfry to build it.",
            RuntimeWarning,
            stacklevel=3,
        )


def _pick(fallback: _Kernel) -> _Kernel:
    """Return the native function or class of the same name, or ``fallback``, which warns once."""
    if _native is not None:
        return cast(_Kernel, getattr(_native, fallback.__name__, fallback))

    @wraps(fallback)
    def announced(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the kernel takes and gives
        _announce()
        return fallback(*args, **kwargs)

    return cast(_Kernel, announced)


def default_threads() -> int:
    """Return ``SMALLFRY_THREADS``, or the number of cores this process may use."""
    text = os.environ.get("SMALLFRY_THREADS")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"SMALLFRY_THREADS is {text!r}, expected a whole number from 1 up. Correct or unset it."
        )
    return int(text)


Decoder = _pick(_decode.Decoder)
pack = _pick(_decode.pack)
unpack = _pick(_decode.unpack)
simd = _pick(_decode.simd)
nearest = _pick(_neighbors.nearest)
scan = _pick(_quantize.scan)
grid_sums = _pick(_quantize.grid_sums)
encode_grid = _pick(_quantize.encode_grid)
ValueSet = _pick(_quantize.ValueSet)
encode_groups = _pick(_codebook.encode_groups)
TokenIndex = _pick(_tokens.TokenIndex)
TokenSet = _pick(_tokens.TokenSet)
pack_tokens = _pick(_tokens.pack_tokens)
place_tokens = _pick(_tokens.place_tokens)
invalid_utf8 = _pick(_text.invalid_utf8)
parse_lines = _pick(_text.parse_lines)
