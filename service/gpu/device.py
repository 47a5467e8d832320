"""Tables on a device, through torch: imported by processes that have a device, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smallfry.nn import operators
from smallfry.nn.packed import Packed
from smallfry.table import Table

# Bytes of codes that are on their way to the device at a time.
_PIECE = 1 << 24


class Device:
    """A device, and this process's stream on it.

    Parameters
    ----------
    device : torch.device
        A CUDA device; on CPU everything works as well, which is how it is tested.

    Attributes
    ----------
    name : str
        As in ``/stats``: ``cuda:0``.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self.name = str(device)

    def free(self) -> int | None:
        """Return the bytes that nobody has taken on the device, None where nobody counts them."""
        return torch.cuda.mem_get_info(self._device)[0] if self._cuda else None

    def put(self, table: Table) -> DeviceTable:
        """Copy a table to the device: its codes once, from the map, a piece at a time."""
        with self.streaming():
            codes = torch.empty(
                table.codes.shape,
                dtype=torch.float32 if table.codebook is None else torch.uint8,
                device=self._device,
            )
            step = max(1, _PIECE // max(1, table.codes[:1].nbytes))
            for start in range(0, table.rows, step):
                piece = self.pinned(table.codes[start : start + step])
                codes[start : start + step].copy_(piece, non_blocking=True)
                self.settled()()
            others = Packed.from_table(replace(table, codes=np.zeros_like(table.codes[:1])))
            packed = others.to(self._device)._replace(codes=codes)
            self.settled()()
        return DeviceTable(self, packed)

    def pinned(self, array: NDArray[Any]) -> Tensor:
        """Return a copy of an array that the device can read by itself."""
        tensor = torch.empty(array.shape, dtype=_TYPES[array.dtype.str], pin_memory=self._cuda)
        tensor.numpy()[...] = array
        return tensor

    def sent(self, array: NDArray[Any]) -> Tensor:
        """Return an array's copy on the device."""
        return self.pinned(array).to(self._device, non_blocking=True)

    def fetched(self, tensor: Tensor) -> NDArray[np.float32]:
        """Return where a tensor of the device will stand once all is settled.

        The memory is pinned and returns to torch's pool of such memory with the last array over it.
        """
        if not self._cuda:
            return tensor.numpy()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        return host.numpy()

    def streaming(self) -> AbstractContextManager[Any]:
        """Put what is launched on this process's stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def settled(self) -> Callable[[], None]:
        """Return what waits, without the GIL, for everything that was launched up to now."""
        if self._stream is None:
            return _nothing
        event = torch.cuda.Event(blocking=True)
        event.record(self._stream)
        wait: Callable[[], None] = event.synchronize
        return wait


class DeviceTable:
    """A packed table on a device.

    Attributes
    ----------
    nbytes : int
        What it takes there.
    """

    def __init__(self, accelerator: Device, packed: Packed) -> None:
        self._accelerator = accelerator
        self._packed = packed
        self.nbytes = sum(part.nbytes for part in packed if isinstance(part, Tensor))

    def rows(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], Callable[[], None]]:
        """Launch a lookup of known rows; return the answer's array, and what waits for it."""
        with self._accelerator.streaming():
            rows = operators.decode(self._accelerator.sent(ids), self._packed)
            return self._accelerator.fetched(rows), self._accelerator.settled()

    def sums(
        self, ids: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], Callable[[], None]]:
        """Launch sums of bags of known rows, as `rows` does; ``offsets`` has the end of the last bag too."""
        send = self._accelerator.sent
        with self._accelerator.streaming():
            sums = operators.bag(send(ids), send(offsets), None, self._packed, "sum", -1, True)
            return self._accelerator.fetched(sums), self._accelerator.settled()

    def warm(self) -> None:
        """Look up once in each way: what is compiled for that is then there when requests come."""
        ids, ends = np.zeros(1, np.int64), np.array([0, 1])
        for _, wait in (self.rows(ids), self.sums(ids, ends)):
            wait()


def find(name: str) -> Device:
    """Return the device of a name (``cuda``, ``cuda:1``).

    Raises
    ------
    RuntimeError
        torch does not see it, or Triton does not work on it.
    """
    from smallfry.nn.dispatch import triton_module

    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no CUDA device")
    device = torch.device("cuda", torch.device(name).index or 0)
    if device.index >= torch.cuda.device_count():
        raise RuntimeError(f"there is no {device}; torch sees {torch.cuda.device_count()} CUDA devices")
    if triton_module() is None:
        # Plain torch adds bags up in no fixed order, and answers have the same bits everywhere.
        raise RuntimeError("Triton does not work")
    return Device(device)


def _nothing() -> None:
    pass


_TYPES = {"<i8": torch.int64, "<f4": torch.float32, "|u1": torch.uint8}
