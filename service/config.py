"""The options of the server: flags, environment variables and help, from one table."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from service.errors import ConfigError

PREFIX = "SMALLFRY_"

Option = dataclasses.Field[Any]
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
LOG_FORMATS = ("text", "json")
#: Upper limit of any number; timers accept no infinity.
_MAX = 1e12
#: Variables with the prefix that belong to the kernels, Ray Serve and the tests.
_OTHER_VARIABLES = frozenset(
    PREFIX + name for name in ("NATIVE", "SIMD", "THREADS", "CACHE", "MODELS_PER_REPLICA", "DATA", "TEST_GPU")
)
#: Variables that Kubernetes and Docker set for a service whose name begins with "smallfry".
_SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_\w+)=.*|{PREFIX}(\w+_)?PORT=(tcp|udp|sctp)://.*",
    re.DOTALL,
)


def _option(default: Any, help: str, **details: Any) -> Any:  # noqa: ANN401 - the field is annotated
    """Describe one option, by `metavar`, `choices`, `min`, `max` and `secret`.

    A secret has no flag, because ``ps`` would show its value.
    """
    return field(default=default, metadata={"help": help, **details}, repr="secret" not in details)


@dataclass(frozen=True)
class Config:
    """The options of the server.

    Each field ``name`` is the flag ``--name`` and the variable ``SMALLFRY_NAME``; the flag wins.
    A tuple is a repeatable flag, or a variable with commas. An empty value is an error.
    """

    embeddings: tuple[str, ...] = _option(
        (), ".sfq file, or folder of them, optionally with a name; repeatable", metavar="[NAME=]PATH"
    )
    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(8000, "port to listen on; 0 picks a free port and prints it", min=0, max=65535)
    uds: str | None = _option(None, "Unix socket to listen on instead of host and port", metavar="PATH")
    uds_mode: str = _option("666", "octal permissions of the Unix socket", metavar="MODE")
    root_path: str | None = _option(
        None, "path prefix under which a proxy publishes the server", metavar="PATH"
    )
    forwarded_allow_ips: str | None = _option(
        None,
        "addresses of proxies whose X-Forwarded-For and -Proto are trusted, comma-separated, or *",
        metavar="IPS",
    )
    workers: int = _option(1, "number of worker processes; all map the same files", min=1, max=1024)
    log_level: str = _option("info", "lowest level to log", choices=LOG_LEVELS)
    log_format: str = _option("text", "log format: text, or one JSON object per line", choices=LOG_FORMATS)
    access_log: bool = _option(False, "log each request")
    max_batch_tokens: int = _option(16384, "maximum tokens, ids or words per request, texts and lists", min=1)
    max_body: int = _option(2 << 20, "maximum bytes of a request body", min=1)
    max_concurrent_requests: int = _option(256, "maximum concurrent requests per worker", min=1)
    max_queue: int = _option(256, "maximum queued requests per worker", min=0)
    request_timeout: float = _option(
        30.0,
        "timeout in seconds to receive a request, to wait in the queue, and for clients that do not read",
        min=0.001,
    )
    keep_alive_timeout: int = _option(75, "seconds that an idle connection stays open", min=1)
    drain_delay: float = _option(
        1.0, "seconds from SIGTERM, when /readyz turns 503, until the server stops accepting", min=0
    )
    shutdown_timeout: float = _option(7.0, "seconds from SIGTERM until the process ends", min=1)
    device: str = _option(
        "cpu",
        "device for lookups: cpu, cuda, cuda:N, or auto (a GPU, from the batch size measured faster)",
    )
    gpu_memory: int = _option(
        0, "maximum bytes of tables on the GPU, over all workers; 0 for 80 % of what is free", min=0
    )
    verify: bool = _option(False, "check all digests of a file before serving it, not only its structure")
    api_keys_file: str | None = _option(None, "file of API keys, one per line", metavar="PATH")
    admin_key_file: str | None = _option(
        None, "file of admin keys, which may change the models", metavar="PATH"
    )
    api_keys: str | None = _option(None, "API keys, comma-separated", secret=True)
    admin_key: str | None = _option(None, "admin keys, comma-separated", secret=True)
    cors_origin: tuple[str, ...] = _option(
        (), "origin allowed to send requests from browsers, or *; repeatable", metavar="ORIGIN"
    )
    tracing: bool = _option(False, "export OpenTelemetry spans as configured by the OTEL_* variables")
    dashboard: bool = _option(True, "serve a dashboard to browsers at /")
    ssl_certfile: str | None = _option(None, "certificate; enables TLS", metavar="PATH")
    ssl_keyfile: str | None = _option(None, "private key of the certificate", metavar="PATH")
    ssl_keyfile_password: str | None = _option(None, "password of the private key", secret=True)
    ssl_ca_certs: str | None = _option(
        None, "certificate authorities; requires client certificates", metavar="PATH"
    )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect: over a Unix socket, or a loopback address."""
        if self.uds is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help lists the options")


def options() -> tuple[Option, ...]:
    """Return the fields of `Config`, in the order in which the help lists them."""
    return dataclasses.fields(Config)


def flag(option: Option) -> str | None:
    """Return the flag of an option (``--log-level``), or None if it has only a variable."""
    return None if "secret" in option.metadata else "--" + option.name.replace("_", "-")


def variable(option: Option) -> str:
    """Return the environment variable of an option (``SMALLFRY_LOG_LEVEL``)."""
    return PREFIX + option.name.upper()


def parser(version: str) -> argparse.ArgumentParser:
    """Return the command line parser; its result holds only the flags that are present."""
    secrets = ", ".join(variable(option) for option in options() if flag(option) is None)
    result = _Parser(
        prog="smallfry-serve",
        description="Serve compressed embedding tables over HTTP.",
        epilog="Each flag can be set by the variable shown with it; the flag wins. "
        f"Secrets have only a variable: {secrets}.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    result.add_argument("--version", action="version", version=f"smallfry-serve {version}")
    for option in options():
        name = flag(option)
        if name is None:
            continue
        default = "" if option.default in (None, ()) else f"; default {option.default}"
        help = f"{option.metadata['help']} [{variable(option)}{default}]".replace("%", "%%")
        if isinstance(option.default, bool):
            result.add_argument(name, action=argparse.BooleanOptionalAction, help=help)
        else:
            action = "append" if isinstance(option.default, tuple) else "store"
            result.add_argument(name, action=action, metavar=option.metadata.get("metavar"), help=help)
    return result


def load(arguments: Sequence[str], environ: Mapping[str, str], version: str) -> Config:
    """Read the options from flags and environment variables.

    Raises
    ------
    ConfigError
        An option is invalid or empty, or a variable ``SMALLFRY_*`` is not an option.
    """
    flags = vars(parser(version).parse_args(arguments))
    environ = _variables(environ)
    values = {}
    for option in options():
        source = variable(option)
        if option.name in flags:
            raw, source = flags[option.name], str(flag(option))
        elif source in environ:
            raw = environ[source]
            if isinstance(option.default, tuple):
                raw = [part.strip() for part in raw.split(",") if part.strip()] or [""]
        else:
            continue
        if any(
            isinstance(each, str) and not each.strip() for each in (raw if isinstance(raw, list) else [raw])
        ):
            raise ConfigError(f"{source} is empty; give it a value, or leave it out")
        values[option.name] = _parse(option, raw, source)
    config = Config(**values)
    if not re.fullmatch("0?[0-7]{3}", config.uds_mode):
        raise ConfigError(f"--uds-mode is {config.uds_mode!r}; it has to be three octal digits such as 660")
    if config.root_path is not None and not re.fullmatch(r"(/[\w.~-]+)+", config.root_path, re.ASCII):
        raise ConfigError(f"--root-path is {config.root_path!r}; it has to be a path such as /embeddings")
    for origin in config.cors_origin:
        if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise ConfigError(f"--cors-origin is {origin!r}; it has to be * or such as https://app.example")
    if config.forwarded_allow_ips not in (None, "*"):
        for address in str(config.forwarded_allow_ips).split(","):
            _check_address(address.strip())
    if config.drain_delay >= config.shutdown_timeout:
        raise ConfigError(
            f"--drain-delay is {config.drain_delay:g} and --shutdown-timeout {config.shutdown_timeout:g}, "
            "both from SIGTERM on; the timeout has to be longer, or requests in flight are cut off"
        )
    return config


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the options; raise `ConfigError` if there are others with the prefix."""
    known = {variable(option) for option in options()}
    found = {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX)
        and name not in _OTHER_VARIABLES
        and not _SERVICE_LINK.fullmatch(f"{name}={value}")
    }
    if unknown := sorted(found.keys() - known):
        names = [name.removeprefix(PREFIX) for name in known]
        similar = difflib.get_close_matches(unknown[0].removeprefix(PREFIX), names, 1)
        advice = f"did you mean {PREFIX}{similar[0]}?" if similar else "smallfry-serve --help lists those"
        raise ConfigError(f"{unknown[0]} is not a variable of the server; {advice}")
    return found


def _check_address(address: str) -> None:
    try:
        ipaddress.ip_network(address)
    except ValueError as error:
        raise ConfigError(f"--forwarded-allow-ips: {error}") from None


def _parse(option: Option, raw: Any, source: str) -> Any:  # noqa: ANN401
    choices, min, max = (option.metadata.get(name) for name in ("choices", "min", "max"))
    if isinstance(option.default, tuple):
        return tuple(raw)
    if isinstance(option.default, bool):
        return raw if isinstance(raw, bool) else _parse_bool(raw, source)
    if choices is not None and raw not in choices:
        raise ConfigError(f"{source} is {raw!r}; it has to be one of {', '.join(choices)}")
    if isinstance(option.default, (int, float)):
        number = type(option.default)
        try:
            value = number(raw)
        except ValueError:
            kind = "a whole number" if number is int else "a number"
            raise ConfigError(f"{source} is {raw!r}; it has to be {kind}") from None
        if min is not None and not value >= min:
            raise ConfigError(f"{source} is {raw}; it has to be at least {min:g}")
        if value > (max or _MAX):
            raise ConfigError(f"{source} is {raw}; it has to be at most {max or _MAX:g}")
        return value
    return raw


def _parse_bool(raw: str, source: str) -> bool:
    if raw.lower() in ("1", "true", "yes", "on"):
        return True
    if raw.lower() in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{source} is {raw!r}; it has to be true or false")
