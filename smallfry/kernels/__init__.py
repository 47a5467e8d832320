"""Kernels: native if the compiled module is installed, NumPy otherwise.

Both have the same names, arguments and results, byte for byte. ``SMALLFRY_NATIVE=0`` selects NumPy,
``SMALLFRY_SIMD=scalar|avx2|avx512`` the native instruction set, ``SMALLFRY_THREADS`` the number of threads.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any, TypeVar, cast

from smallfry.errors import InputError
from smallfry.kernels.numpy import decode as _decode
from smallfry.kernels.numpy import neighbors as _neighbors
from smallfry.kernels.numpy import norms as _norms
from smallfry.kernels.numpy import quantize as _quantize
from smallfry.kernels.numpy import text as _text
from smallfry.kernels.numpy import tokens as _tokens
from smallfry.kernels.numpy import trellis as _trellis

# Smaller outputs are written by the calling thread only.
_PARALLEL_BYTES = 4 << 20

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def _load() -> ModuleType | None:
    if os.environ.get("SMALLFRY_NATIVE") == "0":
        return None
    try:
        return importlib.import_module("smallfry._native")
    except ImportError:
        return None


_native = _load()

native: bool = _native is not None


@cache
def _warn_once() -> None:
    warnings.warn(
        "smallfry runs without its native module: results are the same, but computed many times slower. "
        "Install a C++17 compiler and reinstall smallfry to build it.",
        RuntimeWarning,
        stacklevel=3,
    )


def _select(fallback: _Kernel) -> _Kernel:
    """Return the native function or class of the same name, or ``fallback`` which warns once."""
    if _native is not None:
        return cast(_Kernel, getattr(_native, fallback.__name__, fallback))

    @wraps(fallback)
    def warned(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the arguments of the kernel
        _warn_once()
        return fallback(*args, **kwargs)

    return cast(_Kernel, warned)


def default_threads() -> int:
    """Return ``SMALLFRY_THREADS``, or the number of cores available to this process."""
    text = os.environ.get("SMALLFRY_THREADS")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"SMALLFRY_THREADS is {text!r}, expected a positive integer. Correct or unset it.")
    return int(text)


def thread_count(limit: int | None, nbytes: int) -> int:
    """Return how many threads to use for writing `nbytes` of decoded values: `limit` at most."""
    if nbytes < _PARALLEL_BYTES:
        return 1
    return default_threads() if limit is None else max(1, limit)


Decoder = _select(_decode.Decoder)
pack = _select(_decode.pack)
unpack = _select(_decode.unpack)
simd = _select(_decode.simd)
nearest = _select(_neighbors.nearest)
squared_norms = _select(_norms.squared_norms)
divide_rows = _select(_norms.divide_rows)
scan = _select(_quantize.scan)
grid_sums = _select(_quantize.grid_sums)
encode_grid = _select(_quantize.encode_grid)
ValueSet = _select(_quantize.ValueSet)
encode_trellis = _select(_trellis.encode_trellis)
TokenIndex = _select(_tokens.TokenIndex)
TokenSet = _select(_tokens.TokenSet)
pack_tokens = _select(_tokens.pack_tokens)
build_index = _select(_tokens.build_index)
invalid_utf8 = _select(_text.invalid_utf8)
parse_lines = _select(_text.parse_lines)
format_rows = _select(_text.format_rows)
format_json = _select(_text.format_json)
encode_base64 = _select(_text.encode_base64)
count_values = _select(_text.count_values)


def _native_only(name: str) -> Any:  # noqa: ANN401 - a function or a class of the native module
    if _native is not None:
        return getattr(_native, name)

    def missing(*args: object, **kwargs: object) -> Any:  # noqa: ANN401
        raise InputError(
            "tokenizers need smallfry's native module, which is not installed. "
            "Install a C++17 compiler and reinstall smallfry to build it."
        )

    return missing


build_trie = _native_only("build_trie")
find_in_trie = _native_only("find_in_trie")
Tokenizer = _native_only("Tokenizer")
Encoder = _native_only("Encoder")
