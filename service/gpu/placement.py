"""The models of one worker on its device: copied there while the CPU serves them."""

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
#: Device files of GPU drivers: NVIDIA's, NVIDIA's under WSL, AMD's. Testing them needs no torch.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
#: Share of the free device memory that tables may take if there is no budget.
_SHARE = 0.8


def check_device(config: Config) -> None:
    """Raise `ConfigError` if the name of the device is none of auto, cpu, cuda and cuda:N."""
    if not _DEVICE.fullmatch(config.device):
        raise ConfigError(f"--device is {config.device!r}; it has to be auto, cpu, cuda or cuda:N")


class DeviceManager:
    """The models of one worker that have a copy on its device.

    Nothing is inherited by a fork: each worker opens the device on its first `load`, and keeps its own
    copies within its share of the memory budget. `open` returns the device of a name, by default with torch.
    """

    def __init__(self, config: Config, meter: Meter, open: Callable[[str], Device] | None = None) -> None:
        self._name = config.device
        self._budget = config.gpu_memory // config.workers if config.gpu_memory else None
        self._largest = config.max_batch_tokens
        self._meter = meter
        self._open = open
        self._device: Device | None = None
        self._waiter = ThreadPoolExecutor(1, "device")
        self._batchers: WeakKeyDictionary[Model, Batcher] = WeakKeyDictionary()
        self._seen: WeakSet[Model] = WeakSet()
        self._measured: dict[tuple[object, ...], BreakEven] = {}
        self._thread: Thread | None = None

    def get(self, model: Model) -> Batcher | None:
        """Return the batcher of a model, or None if the CPU serves it."""
        batcher = self._batchers.get(model) if self._device is not None else None
        return None if batcher is None or batcher.failed else batcher

    def device_of(self, model: Model) -> str:
        """Return the name of the device that serves a model."""
        batcher = self.get(model)
        return CPU if batcher is None else batcher.name

    def load(self, models: Iterable[Model]) -> None:
        """Copy new models to the device in a background thread; called once a second."""
        if self._name == CPU or (self._thread is not None and self._thread.is_alive()):
            return
        for model in [model for model, batcher in self._batchers.items() if batcher.failed]:
            del self._batchers[model]
        self._update_meter()
        new = [model for model in models if model not in self._seen]
        if new:
            self._seen.update(new)
            self._thread = Thread(target=self._load, args=(new,), name="device-load", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until `load` has finished."""
        if self._thread is not None:
            self._thread.join()

    def _load(self, models: list[Model]) -> None:
        try:
            device = self._device or self._find()
            if device is None:
                self._name = CPU
                return
            self._device = device
            for model in models:
                try:
                    self._load_model(device, model)
                except Exception as error:
                    # Most likely memory that other processes took; the next model may be smaller.
                    logger.warning("loading model %r fails: %s; it runs on the CPU", model.name, error)
        except Exception:
            logger.exception("loading models on %s failed; they run on the CPU", self._name)
        self._update_meter()

    def _find(self) -> Device | None:
        name = "cuda" if self._name == AUTO else self._name
        if self._open is not None:
            return self._open(name)
        # With `auto`, a machine without a GPU is expected.
        level = logging.INFO if self._name == AUTO else logging.WARNING
        if not any(driver.exists() for driver in _DRIVERS):
            logger.log(level, "no GPU driver found; models run on the CPU")
            return None
        if find_spec("torch") is None:
            logger.warning("a GPU was found, but torch is not installed; models run on the CPU")
            return None
        from service.gpu.device import find

        try:
            return find(name)
        except RuntimeError as error:
            logger.warning("%s cannot be used: %s; models run on the CPU", name, error)
            return None

    def _load_model(self, device: Device, model: Model) -> None:
        source = model.store.table
        needed, available = sum(source.nbytes.values()), self._available(device)
        if available is not None and needed > available:
            message = "model %r takes %d bytes, and %d are available on %s (--gpu-memory); it runs on the CPU"
            logger.warning(message, model.name, needed, available, device.name)
            return
        table = device.load(source)
        table.warm_up()
        break_even = BreakEven(1, 1) if self._name != AUTO else self._measure(model, table)
        if min(break_even) == float("inf"):
            logger.info("model %r stays on the CPU, which is faster at every batch size", model.name)
            return
        self._batchers[model] = Batcher(
            source, table, break_even, device.name, self._waiter, self._meter.count_device_rows
        )
        message = "model %r is on %s, %d bytes: batches from %g ids, sums from %g"
        logger.info(message, model.name, device.name, table.nbytes, *break_even)

    def _available(self, device: Device) -> int | None:
        """Return the bytes that one more table may take."""
        if self._budget is not None:
            return self._budget - self._nbytes()
        free = device.free()
        return None if free is None else int(free * _SHARE)

    def _measure(self, model: Model, device: DeviceTable) -> BreakEven:
        """Measure the break-even size, once for tables of one shape."""
        table = model.store.table
        options = tuple(table.nbytes[part] == 0 for part in ("mean", "column_scale", "row_scale"))
        shape = (table.dim, table.nbit, table.rows.bit_length(), table.nbytes["codebook"], *options)
        if shape not in self._measured:
            self._measured[shape] = measure(table, device, self._waiter, self._largest)
        return self._measured[shape]

    def _nbytes(self) -> int:
        return sum(batcher.nbytes for batcher in list(self._batchers.values()))

    def _update_meter(self) -> None:
        self._meter.set_device_bytes(self._nbytes())
