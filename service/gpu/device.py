"""Tables on a device, through torch; imported only by processes that have a device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.nn.kernels import operators
from smallfry.nn.packed import Packed
from smallfry.table import Table

#: Bytes of codes that are copied to the device at a time.
_CHUNK = 1 << 24
_TYPES = {"<i8": torch.int64, "<f4": torch.float32, "|u1": torch.uint8}

Launch = tuple[NDArray[np.float32], Callable[[], None]]


class Device:
    """A CUDA device, or in tests the CPU, and this process's stream on it; its name is as in ``cuda:0``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self.name = str(device)

    def free(self) -> int | None:
        """Return the free bytes of the device; None on CPU."""
        return torch.cuda.mem_get_info(self._device)[0] if self._cuda else None

    def load(self, table: Table) -> DeviceTable:
        """Copy a table to the device: its codes from the memory map, chunk by chunk."""
        table = table.unpaged()
        with self.stream():
            codes = torch.empty(
                table.codes.shape,
                dtype=torch.float32 if table.codebook is None else torch.uint8,
                device=self._device,
            )
            step = max(1, _CHUNK // max(1, table.codes[:1].nbytes))
            for start in range(0, table.rows, step):
                chunk = self._pin(table.codes[start : start + step])
                codes[start : start + step].copy_(chunk, non_blocking=True)
                self.synchronizer()()
            others = Packed.from_table(replace(table, codes=np.zeros_like(table.codes[:1])))
            packed = others.to(self._device)._replace(codes=codes)
            self.synchronizer()()
        return DeviceTable(self, packed)

    def send(self, array: NDArray[Any]) -> Tensor:
        """Return a copy of an array on the device."""
        return self._pin(array).to(self._device, non_blocking=True)

    def fetch(self, tensor: Tensor) -> NDArray[np.float32]:
        """Start copying a tensor to the host; the array is valid after synchronization.

        Its memory is pinned, and returns to torch's pool when the last array over it is deleted.
        """
        if not self._cuda:
            return tensor.numpy()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        return host.numpy()

    def stream(self) -> AbstractContextManager[Any]:
        """Launch on this process's stream within the context."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def synchronizer(self) -> Callable[[], None]:
        """Return a function that waits, without the GIL, for everything launched so far."""
        if self._stream is None:
            return lambda: None
        event = torch.cuda.Event(blocking=True)
        event.record(self._stream)
        wait: Callable[[], None] = event.synchronize
        return wait

    def _pin(self, array: NDArray[Any]) -> Tensor:
        """Return a copy of an array in pinned memory, which the device reads by DMA."""
        tensor = torch.empty(array.shape, dtype=_TYPES[array.dtype.str], pin_memory=self._cuda)
        tensor.numpy()[...] = array
        return tensor


class DeviceTable:
    """A packed table on a device."""

    def __init__(self, device: Device, packed: Packed) -> None:
        self._device = device
        self._packed = packed
        self.nbytes = sum(part.nbytes for part in packed if isinstance(part, Tensor))

    def rows(self, ids: NDArray[np.int64]) -> Launch:
        """Launch a lookup of known rows; return the array of the result, and a function that waits for it."""
        with self._device.stream():
            rows = operators.decode(self._device.send(ids), self._packed)
            return self._device.fetch(rows), self._device.synchronizer()

    def sums(self, ids: NDArray[np.int64], offsets: NDArray[np.int64]) -> Launch:
        """Launch sums of bags of known rows, as `rows` does; `offsets` include the end of the last bag."""
        send = self._device.send
        with self._device.stream():
            sums = operators.bag(send(ids), send(offsets), None, self._packed, "sum", -1, True)
            return self._device.fetch(sums), self._device.synchronizer()

    def warm_up(self) -> None:
        """Run each kernel once, so that all are compiled before requests arrive."""
        ids, offsets = np.zeros(1, np.int64), np.array([0, 1])
        for _, wait in (self.rows(ids), self.sums(ids, offsets)):
            wait()


def find(name: str) -> Device:
    """Return the device of a name (``cuda``, ``cuda:1``); raise `RuntimeError` if it cannot be used."""
    from smallfry.nn.kernels.dispatch import triton_module

    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no CUDA device")
    device = torch.device("cuda", torch.device(name).index or 0)
    if device.index >= torch.cuda.device_count():
        raise RuntimeError(f"{device} does not exist; torch sees {torch.cuda.device_count()} CUDA devices")
    if triton_module() is None:
        # torch's own bag kernel sums in no fixed order; results must have the same bits everywhere.
        raise RuntimeError("Triton does not work")
    return Device(device)
