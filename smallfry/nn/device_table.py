"""A store whose rows a GPU decodes."""

from __future__ import annotations

import ctypes
import warnings
import weakref
from contextlib import suppress
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.errors import InputError
from smallfry.kernels import thread_count
from smallfry.nn.kernels import dispatch
from smallfry.pages import sequential
from smallfry.store import Store
from smallfry.table import Table

Memory = Literal["file", "host", "device"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Tables by store and device. They hold the map of a store, not the store.
_tables: weakref.WeakKeyDictionary[Store, dict[torch.device, DeviceTable]] = weakref.WeakKeyDictionary()

# Flags of cudaHostRegister.
_MAPPED, _READ_ONLY = 2, 8


class DeviceTable:
    """The table of a store, for a GPU that decodes its rows.

    Later gathers of the store with ``out`` on the device use this table. Values do not depend on `memory`.

    Parameters
    ----------
    store : Store
    device : torch.device
    memory : {"file", "host", "device"}
        What the GPU reads:

        - ``"file"``: the packed rows of each call, which the CPU copies into pinned memory. Any size of file;
          pages can be evicted. Ids on the GPU are copied to the CPU, which waits for them.
        - ``"host"``: the mapped file, registered with CUDA, over the bus. The whole file is locked in memory.
        - ``"device"``: a copy of the table in the memory of the device.

        A table that is not paged, and one of a process without Triton, is decoded by the CPU into pinned
        memory under ``"file"``, and rejected otherwise.

    Raises
    ------
    InputError
        ``memory`` has another value, or is not ``"file"`` and the GPU cannot decode the table.
    RuntimeError
        The device has too little memory, or CUDA cannot register the file.
    """

    def __init__(self, store: Store, device: torch.device | str, memory: Memory = "file") -> None:
        check_memory(memory)
        self.memory = memory
        self.device = _with_index(torch.device(device))
        self._table = table = store.table
        self._kernels = kernels = _kernels(table)
        self._decoding = None if kernels is None else kernels.Decoding.of(table, self.device)
        self._records: Tensor | None = None
        if memory != "file":
            if table.paged_rows is None:
                raise InputError(
                    f"{store.path} is not paged, which memory={memory!r} needs. Please compress it with "
                    "--paged, or use memory='file' or QuantEmbedding.from_sfq."
                )
            if kernels is None:
                raise InputError(
                    f"memory={memory!r} needs Triton, which does not work here. Please use memory='file'."
                )
            with sequential(table.codes):
                self._records = _copied(table, self.device) if memory == "device" else self._registered(table)
        _tables.setdefault(store, {})[self.device] = self

    def gather(self, ids: Tensor, out: Tensor, *, threads: int | None = None) -> None:
        """Write the rows at ``ids``, ``[*ids.shape, dim]``, to ``out`` on the device.

        Ids on the CPU are checked, and the CPU does not wait for the GPU. Ids on the GPU stay there if it
        reads the whole table; one out of range then yields a row of NaN. ``threads`` is that of
        `smallfry.Store.gather`.

        Raises
        ------
        IndexError
            An id on the CPU is out of range.
        RuntimeError
            A CUDA graph is being captured, and the CPU would have to take part in each replay.
        """
        _check(ids, out, self._table)
        if ids.device == out.device and self._records is not None:
            assert self._kernels is not None
            self._kernels.gather(ids, self._records, self._decoding, out)
            return
        if out.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph is being captured, but the CPU gathers rows of this table, which replays would "
                "not repeat. Please gather outside the graph (split it at smallfry::gather), or pass ids on "
                "the GPU and use memory='device' or 'host'."
            )
        ids, table = ids.cpu(), self._table
        if self._kernels is None:
            rows = self._pinned(out.shape, out.dtype)
            table.gather(ids.contiguous(), out=rows, threads=threads)
            out.copy_(rows, non_blocking=True)
            return
        assert self._decoding is not None
        if self._records is not None:
            self._check_range(ids)
            sent = self._pinned(ids.shape, ids.dtype).copy_(ids)
            self._kernels.gather(self._send(sent), self._records, self._decoding, out)
            return
        records = self._pinned((*ids.shape, self._decoding.record), torch.uint8)
        count = thread_count(threads, records.nbytes)
        table.decoder.gather_records(ids.contiguous(), records, table.head_offsets, count)
        self._kernels.gather(None, self._send(records), self._decoding.of_records(), out)

    def _registered(self, table: Table) -> Tensor:
        """Return the blocks of a table in host memory that the device reads."""
        codes = table.codes
        address, size = codes.ctypes.data, codes.nbytes
        records = torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
        if self.device.type != "cuda":
            return records
        with torch.cuda.device(self.device):
            cuda: Any = torch.cuda.cudart()
            error = int(cuda.cudaHostRegister(address, size, _MAPPED | _READ_ONLY))
            if error:
                with suppress(RuntimeError):
                    torch.zeros(1, device=self.device)  # clears the error, which a launch would report
                raise RuntimeError(
                    f"CUDA cannot register the {size:,} mapped bytes of the table (error {error}). It needs "
                    "memory for all of them, and a GPU and driver that register read-only files. Please use "
                    "memory='file' or 'device'."
                )
        # The finalizer holds the codes, which keeps them mapped until then.
        weakref.finalize(self, _unregister, cuda, self.device, codes).atexit = False
        return records

    def _check_range(self, ids: Tensor) -> None:
        heads = self._table.head_offsets
        ends = self._table.rows if heads is None else torch.from_numpy(np.diff(heads.astype(np.int64)))
        if bool(((ids < 0) | (ids >= ends)).any()):
            self._table.gather(ids.contiguous())  # raises the error

    def _pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return memory that torch reuses once the copies from it are done."""
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=self.device.type == "cuda")

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


def gather_to_device(
    store: Store,
    ids: Any,  # noqa: ANN401 - an array of any library
    out: Tensor,
    threads: int | None = None,
) -> Tensor:
    """Write rows of a store to a CUDA tensor, and return it; see `DeviceTable.gather`."""
    device_table(store, out.device).gather(torch.as_tensor(ids), out, threads=threads)
    return out


def device_table(store: Store, device: torch.device) -> DeviceTable:
    """Return the table of a store for a device; by default one that reads the file."""
    table = _tables.get(store, {}).get(_with_index(device))
    return DeviceTable(store, device) if table is None else table


def check_memory(memory: str) -> None:
    """Raise InputError unless ``memory`` is one of `DeviceTable`."""
    if memory not in get_args(Memory):
        raise InputError(f"memory is {memory!r}, expected 'file', 'host' or 'device'")


def _with_index(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _kernels(table: Table) -> ModuleType | None:
    """Return the module that launches the kernel of paged tables; None if it cannot decode this one."""
    if table.paged_rows is None or dispatch.triton_module() is None:
        return None
    from smallfry.nn.kernels import paged_launch

    return paged_launch


def _copied(table: Table, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        # The array of a mapped file is read-only, and is only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(table.codes).to(device, copy=True)


def _unregister(cuda: Any, device: torch.device, codes: NDArray[Any]) -> None:  # noqa: ANN401
    torch.cuda.synchronize(device)
    cuda.cudaHostUnregister(codes.ctypes.data)


def _check(ids: Tensor, out: Tensor, table: Table) -> None:
    heads, dim = table.head_offsets, table.dim
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids are {ids.dtype}, expected torch.int64 or torch.int32")
    if heads is not None and ids.shape[-1:] != (len(heads) - 1,):
        raise InputError(
            f"ids have shape {list(ids.shape)}, expected [..., {len(heads) - 1}]: the last axis is the head"
        )
    if out.dtype not in DTYPES:
        raise InputError(f"out is {out.dtype}, expected torch.float32, torch.float16 or torch.bfloat16")
    if out.shape != (*ids.shape, dim):
        raise InputError(f"out has shape {list(out.shape)}, expected {[*ids.shape, dim]}")
    if not out.is_contiguous():
        raise InputError("out is not contiguous. Please pass a contiguous tensor, or copy the rows to it.")
