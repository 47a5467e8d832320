"""The C library through ctypes, and what it must accept."""

import ctypes
import os
import shutil
import subprocess
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from smallfry import kernels
from smallfry.errors import SfqError
from smallfry.sfq import safetensors
from smallfry.sfq.header import Header, header_end, parse_header
from smallfry.sfq.metadata import Metadata
from smallfry.sfq.tensors import TOKEN_TENSORS, check_tensors, check_values, expected_tensors
from smallfry.text.model import TextTensors

OK, INVALID_ARGUMENT, IO_ERROR, INVALID_FILE, OUT_OF_RANGE = range(5)
#: The names of dtypes, by their numbers in smallfry.h.
DTYPES = ("float32", "float16", "bfloat16")


def folder() -> Path:
    """Return the folder of libsmallfry.so and include/smallfry.h."""
    import smallfry._native

    return Path(smallfry._native.__file__).parent


COMPILER = shutil.which(os.environ.get("CC", "cc"))


def compile_and_link(source: Path, path: Path) -> None:
    """Compile a program with the installed header and library."""
    library = folder()
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"]
    link = ["-L", library, "-lsmallfry", f"-Wl,-rpath,{library}"]
    subprocess.run([COMPILER, *flags, "-I", library / "include", source, *link, "-o", path], check=True)


def load() -> ctypes.CDLL:
    """Return the library with the types of its functions."""
    library = ctypes.CDLL(str(folder() / "libsmallfry.so"))
    ids = (c_void_p, c_void_p, c_size_t)
    for name, result, arguments in (
        ("open", c_int, (c_char_p, POINTER(c_void_p))),
        ("close", None, (c_void_p,)),
        ("rows", c_int64, (c_void_p,)),
        ("dim", c_int64, (c_void_p,)),
        ("heads", c_int64, (c_void_p,)),
        ("gather", c_int, (*ids, c_void_p, c_int)),
        ("prefetch", c_int, (*ids, POINTER(c_size_t))),
        ("last_error", c_char_p, ()),
        ("version", c_char_p, ()),
    ):
        function = getattr(library, f"smallfry_{name}")
        function.restype, function.argtypes = result, arguments
    return library


LIBRARY = load() if kernels.native else None


class CError(Exception):
    """A function returned another status than OK.

    Attributes
    ----------
    status : int
    """

    def __init__(self, status: int) -> None:
        super().__init__(LIBRARY.smallfry_last_error().decode())
        self.status = status


class CTable:
    """An open table; a context manager."""

    def __init__(self, path: str | Path) -> None:
        self.handle = c_void_p()
        check(LIBRARY.smallfry_open(bytes(Path(path)), byref(self.handle)))

    def __enter__(self) -> "CTable":
        return self

    def __exit__(self, *_: object) -> None:
        LIBRARY.smallfry_close(self.handle)

    @property
    def rows(self) -> int:
        return LIBRARY.smallfry_rows(self.handle)

    @property
    def dim(self) -> int:
        return LIBRARY.smallfry_dim(self.handle)

    @property
    def heads(self) -> int:
        return LIBRARY.smallfry_heads(self.handle)

    def gather(self, ids: object, dtype: str = "float32") -> np.ndarray:
        """Return rows as float32 or float16, or as the uint16 of bfloat16."""
        ids = np.ascontiguousarray(ids, np.int64)
        out = np.empty((ids.size, self.dim), "uint16" if dtype == "bfloat16" else dtype)
        pointers = ids.ctypes.data, ids.size, out.ctypes.data
        check(LIBRARY.smallfry_gather(self.handle, *pointers, DTYPES.index(dtype)))
        return out.reshape(*ids.shape, self.dim)

    def prefetch(self, ids: object) -> int:
        """Return the number of pages."""
        ids, pages = np.ascontiguousarray(ids, np.int64), c_size_t()
        check(LIBRARY.smallfry_prefetch(self.handle, ids.ctypes.data, ids.size, byref(pages)))
        return pages.value


def check(status: int) -> None:
    """Raise CError for another status than OK."""
    if status != OK:
        raise CError(status)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the bits of finite float32 values, rounded to the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def is_valid_without_tokens(raw: bytes) -> bool:
    """Whether the rules that do not concern tokens and texts accept a file."""
    token_tensors = {*TOKEN_TENSORS, *TextTensors._fields}
    try:
        header = parse_header(raw[: header_end(raw, len(raw))], len(raw))
        tensors = {name: entry for name, entry in header.tensors.items() if name not in token_tensors}
        strings = {n: s for n, s in header.metadata.items() if n not in ("pooling", "token_hash_seed")}
        header = Header(tensors, strings, header.data_start, header.digest)
        metadata = Metadata.parse(strings)
        check_tensors(header, metadata)
        arrays = {
            name: np.frombuffer(
                raw[header.data_start + entry.begin : header.data_start + entry.end],
                safetensors.DTYPES[entry.dtype],
            )
            for name, entry in tensors.items()
            if name in expected_tensors(metadata)
        }
        check_values(arrays, metadata.rows)
    except SfqError:
        return False
    return True
