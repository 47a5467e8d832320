"""The options of the server: one table from which flags, variables and help are made."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from service.errors import ConfigError

PREFIX = "SMALLFRY_"

Option = dataclasses.Field[Any]
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
LOG_FORMATS = ("text", "json")
#: Most that any number can mean; timers take no infinity.
_MOST = 1e12


def _option(
    default: Any,  # noqa: ANN401 - the field's own annotation says the type
    help: str,
    *,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    least: float | None = None,
    most: float = _MOST,
    secret: bool = False,
) -> Any:  # noqa: ANN401
    """Describe one option; a secret one is read from its variable alone, where ``ps`` does not show it."""
    limits = {"least": least, "most": most}
    metadata = {"help": help, "metavar": metavar, "choices": choices, "secret": secret, **limits}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True)
class Config:
    """What the server was asked to do.

    Each field ``name`` is the flag ``--name`` and the variable ``SMALLFRY_NAME``; the flag wins.
    Fields that hold a tuple repeat as a flag and are separated by commas in their variable.
    """

    embeddings: tuple[str, ...] = _option(
        (), "a .sfq file or a folder of them, optionally under a name; repeatable", metavar="[NAME=]PATH"
    )
    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(8000, "port to listen on; 0 takes a free one and prints it", least=0, most=65535)
    uds: str | None = _option(None, "unix socket to listen on instead of host and port", metavar="PATH")
    workers: int = _option(1, "processes that answer; all map the same files", least=1, most=1024)
    log_level: str = _option("info", "least severe message to log", choices=LOG_LEVELS)
    log_format: str = _option("text", "how to log: text, or one JSON object a line", choices=LOG_FORMATS)
    access_log: bool = _option(False, "log each request")
    max_batch_tokens: int = _option(
        16384, "most tokens or ids in one request, and lists or texts of them", least=1
    )
    max_body: int = _option(2 << 20, "most bytes in one request's body", least=1)
    max_concurrent_requests: int = _option(256, "requests that a worker answers at once", least=1)
    max_queue: int = _option(256, "requests that may wait for that, in each worker", least=0)
    request_timeout: float = _option(
        30.0, "seconds that a request may wait for its turn, and its body may take to arrive", least=0.001
    )
    drain_delay: float = _option(
        1.0, "seconds between SIGTERM, when /readyz turns 503, and the end of accepting", least=0
    )
    shutdown_timeout: float = _option(30.0, "seconds from SIGTERM to the end of the process", least=1)
    device: str = _option(
        "cpu",
        "where tables are decoded: cpu, cuda, cuda:N, or auto: on a GPU from the batch that measures faster",
    )
    gpu_memory: int = _option(
        0, "most bytes of tables on the GPU, of all workers; 0 leaves it to what is free there", least=0
    )
    verify: bool = _option(False, "check all digests of a file before serving it, not its structure alone")
    api_keys_file: str | None = _option(None, "file of API keys, one a line", metavar="PATH")
    admin_key_file: str | None = _option(None, "file of keys that may change what is served", metavar="PATH")
    api_keys: str | None = _option(None, "API keys, separated by commas", secret=True)
    admin_key: str | None = _option(None, "keys that may change what is served, by commas", secret=True)
    cors_origin: tuple[str, ...] = _option(
        (), "origin whose pages may ask, or *; repeatable", metavar="ORIGIN"
    )
    tracing: bool = _option(False, "send OpenTelemetry spans to where the OTEL_* variables say")
    dashboard: bool = _option(True, "answer browsers with a dashboard at /")
    ssl_certfile: str | None = _option(None, "certificate; turns TLS on", metavar="PATH")
    ssl_keyfile: str | None = _option(None, "the certificate's private key", metavar="PATH")
    ssl_keyfile_password: str | None = _option(None, "password of the private key", secret=True)
    ssl_ca_certs: str | None = _option(
        None, "authorities whose client certificates are required", metavar="PATH"
    )


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are, as all others, one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help lists the options")


def options() -> tuple[Option, ...]:
    """Return the fields of `Config`, in the order in which the help lists them."""
    return dataclasses.fields(Config)


def flag(option: Option) -> str | None:
    """Return the flag of an option (``--log-level``), or None where only a variable sets it."""
    return None if option.metadata["secret"] else "--" + option.name.replace("_", "-")


def variable(option: Option) -> str:
    """Return the environment variable of an option (``SMALLFRY_LOG_LEVEL``)."""
    return PREFIX + option.name.upper()


def parser(version: str) -> argparse.ArgumentParser:
    """Return the command line's parser; flags that are not given are absent from its result."""
    result = _Parser(
        prog="smallfry-serve",
        description="Serve compressed embedding tables over HTTP.",
        epilog="Each flag can be set by the variable named beside it; the flag wins.",
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
            result.add_argument(name, action=action, metavar=option.metadata["metavar"], help=help)
    return result


def load(arguments: Sequence[str], environ: Mapping[str, str], version: str) -> Config:
    """Read the options from the command line and, where it does not give them, from variables.

    Raises
    ------
    ConfigError
        A flag is unknown, or a value has the wrong form; the message names the flag or variable. Or the
        server would have to end before it stops to accept.
    """
    given = vars(parser(version).parse_args(arguments))
    values = {}
    for option in options():
        source = variable(option)
        if option.name in given:
            raw, source = given[option.name], str(flag(option))
        elif environ.get(source):
            raw = environ[source]
            if isinstance(option.default, tuple):
                raw = [part.strip() for part in raw.split(",") if part.strip()]
        else:
            continue
        values[option.name] = _parse(option, raw, source)
    config = Config(**values)
    if config.drain_delay >= config.shutdown_timeout:
        raise ConfigError(
            f"--drain-delay is {config.drain_delay:g} and --shutdown-timeout {config.shutdown_timeout:g}, "
            "both from SIGTERM on: the timeout has to be longer, or requests in flight are cut off"
        )
    return config


def _parse(option: Option, raw: Any, source: str) -> Any:  # noqa: ANN401
    choices, least, most = (option.metadata[name] for name in ("choices", "least", "most"))
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
        if least is not None and not value >= least:
            raise ConfigError(f"{source} is {raw}; it has to be at least {least:g}")
        if value > most:
            raise ConfigError(f"{source} is {raw}; it has to be at most {most:g}")
        return value
    return raw


def _parse_bool(raw: str, source: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False}
    try:
        return (values | {"off": False})[raw.lower()]
    except KeyError:
        raise ConfigError(f"{source} is {raw!r}; it has to be true or false") from None
