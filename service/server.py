"""The parts of one serving process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.config import Config
from service.errors import ConfigError
from service.gpu.placement import DeviceManager, check_device
from service.http.auth import Keys
from service.http.limits import Limits
from service.lifecycle import Lifecycle
from service.models.registry import Models, log_failures
from service.models.sources import Sources
from service.observability.history import History
from service.observability.metrics import COUNTERS, Meter
from service.observability.stats import Report
from service.scoreboard import Scoreboard


@dataclass(frozen=True)
class Server:
    """The parts of one serving process, which the application and the worker share.

    `gather` adds the reports of other servers behind the same address to this server's.
    """

    config: Config
    models: Models
    devices: DeviceManager
    scoreboard: Scoreboard
    meter: Meter
    history: History
    keys: Keys
    limits: Limits
    lifecycle: Lifecycle
    gather: Callable[[Report], Awaitable[Report]] | None

    @classmethod
    def open(
        cls,
        config: Config,
        open_models: Callable[[Scoreboard], Models] | None = None,
        gather: Callable[[Report], Awaitable[Report]] | None = None,
    ) -> Server:
        """Open the models, by default those of ``--embeddings``, and check the options.

        Raises
        ------
        ConfigError
            The options contradict each other, or no file can be served and none can be uploaded.
        """
        check_device(config)
        keys = Keys.read(config)
        scoreboard = Scoreboard(config.workers, COUNTERS)
        if open_models is None:
            models = Models(Sources(config.embeddings), scoreboard, verify=config.verify)
        else:
            models = open_models(scoreboard)
        if not models.names() and not keys.has_admin:
            failures = [f"{file}: {message}" for file, message in models.failed.items()]
            raise ConfigError(*failures or [f"there is no .sfq file in {', '.join(config.embeddings)}"])
        log_failures(models.failed)
        meter = Meter(scoreboard.block(0))
        return cls(
            config,
            models,
            DeviceManager(config, meter),
            scoreboard,
            meter,
            History(scoreboard),
            keys,
            Limits.of(config, meter.count_queued),
            Lifecycle(),
            gather,
        )
