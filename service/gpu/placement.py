"""Which models of a process lie on its device: copied there while the CPU answers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from service.config import Config
from service.errors import ConfigError
from service.gpu.batching import Batcher, BreakEven
from service.gpu.calibration import measure
from service.models.model import Model
from service.observability.metrics import Meter

if TYPE_CHECKING:
    from service.gpu.device import Device, DeviceTable

logger = logging.getLogger("smallfry.device")

CPU = "cpu"
AUTO = "auto"

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
# Where drivers of GPUs show: NVIDIA's, NVIDIA's under WSL, AMD's. Looking costs no import of torch.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
#: Of what is free on the device, the part that tables may take where no budget is given.
_SHARE = 0.8


def check_device(config: Config) -> None:
    """Refuse a device of another kind.

    Raises
    ------
    ConfigError
        It is none of ``auto``, ``cpu``, ``cuda`` and ``cuda:N``.
    """
    if not _DEVICE.fullmatch(config.device):
        raise ConfigError(f"--device is {config.device!r}; it has to be auto, cpu, cuda or cuda:N")


class DeviceManager:
    """The models of one worker that lie on a device.

    Nothing of it is inherited by a fork: each worker opens the device for itself when it first places, and
    has its own copies, within its share of the budget.

    Parameters
    ----------
    config : Config
        The options of the server.
    meter : Meter
        Where bytes and rows of the device are counted.
    open : callable, optional
        Returns the device of a name; torch's where left out.
    """

    def __init__(self, config: Config, meter: Meter, open: Callable[[str], Device] | None = None) -> None:
        self._wanted = config.device
        self._budget = config.gpu_memory // config.workers if config.gpu_memory else None
        self._most = config.max_batch_tokens
        self._meter = meter
        self._open = open
        self._accelerator: Device | None = None
        self._waiter = ThreadPoolExecutor(1, "device")
        self._placed: WeakKeyDictionary[Model, Batcher] = WeakKeyDictionary()
        self._seen: WeakSet[Model] = WeakSet()
        self._measured: dict[tuple[object, ...], BreakEven] = {}
        self._thread: Thread | None = None

    def get(self, model: Model) -> Batcher | None:
        """Return a model's copy on the device, None where the CPU answers."""
        placed = self._placed.get(model) if self._accelerator is not None else None
        return None if placed is None or placed.failed else placed

    def where(self, model: Model) -> str:
        """Name the device that a model lies on."""
        placed = self.get(model)
        return CPU if placed is None else placed.name

    def place(self, models: Iterable[Model]) -> None:
        """Copy models that are new to the device, in a thread of its own; called once a second."""
        if self._wanted == CPU or (self._thread is not None and self._thread.is_alive()):
            return
        for model in [model for model, placed in self._placed.items() if placed.failed]:
            del self._placed[model]
        self._count()
        new = [model for model in models if model not in self._seen]
        if new:
            self._seen.update(new)
            self._thread = Thread(target=self._place, args=(new,), name="placement", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when what was to be placed is."""
        if self._thread is not None:
            self._thread.join()

    def _place(self, models: list[Model]) -> None:
        try:
            accelerator = self._accelerator or self._find()
            if accelerator is None:
                self._wanted = CPU
                return
            self._accelerator = accelerator
            for model in models:
                try:
                    self._put(accelerator, model)
                except Exception as error:
                    # Most likely memory that others took; the next model may be smaller.
                    logger.warning("model %r fails on the device: %s; the CPU answers", model.name, error)
        except Exception:
            logger.exception("placing models on %s failed; the CPU answers", self._wanted)
        self._count()

    def _find(self) -> Device | None:
        name = "cuda" if self._wanted == AUTO else self._wanted
        if self._open is not None:
            return self._open(name)
        # With `auto`, a machine without a GPU is no news.
        level = logging.INFO if self._wanted == AUTO else logging.WARNING
        if not any(driver.exists() for driver in _DRIVERS):
            logger.log(level, "there is no driver of a GPU; the CPU answers")
            return None
        if find_spec("torch") is None:
            logger.warning("there is a GPU, but torch is not installed; the CPU answers")
            return None
        from service.gpu.device import find

        try:
            return find(name)
        except RuntimeError as error:
            logger.warning("%s cannot be used: %s; the CPU answers", name, error)
            return None

    def _put(self, accelerator: Device, model: Model) -> None:
        table = model.store.table
        needed, room = sum(table.nbytes.values()), self._room(accelerator)
        if room is not None and needed > room:
            logger.warning(
                "model %r takes %d bytes, and %d are left on %s (--gpu-memory); the CPU answers",
                model.name,
                needed,
                room,
                accelerator.name,
            )
            return
        device = accelerator.put(table)
        device.warm()
        break_even = BreakEven(1, 1) if self._wanted != AUTO else self._break_even(model, device)
        if min(break_even) == float("inf"):
            logger.info("model %r stays on the CPU, which is faster at every size", model.name)
            return
        self._placed[model] = Batcher(
            table, device, break_even, accelerator.name, self._waiter, self._meter.count_device_rows
        )
        logger.info(
            "model %r is on %s, %d bytes: batches from %s ids, sums from %s",
            model.name,
            accelerator.name,
            device.nbytes,
            *map("{:g}".format, break_even),
        )

    def _room(self, accelerator: Device) -> int | None:
        """Return the bytes that one more table may take."""
        if self._budget is not None:
            return self._budget - self._nbytes()
        free = accelerator.free()
        return None if free is None else int(free * _SHARE)

    def _break_even(self, model: Model, device: DeviceTable) -> BreakEven:
        """Measure, once for tables of one shape."""
        table = model.store.table
        shape = (
            table.dim,
            table.nbit,
            table.kind,
            table.mean is None,
            table.row_scale is None,
            table.rows.bit_length(),
        )
        if shape not in self._measured:
            self._measured[shape] = measure(table, device, self._waiter, self._most)
        return self._measured[shape]

    def _nbytes(self) -> int:
        return sum(placed.nbytes for placed in list(self._placed.values()))

    def _count(self) -> None:
        self._meter.set_device_bytes(self._nbytes())
