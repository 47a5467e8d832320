"""Authentication: API keys, and the admin key for changing the served models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from service.config import PREFIX, Config
from service.errors import ConfigError, NotAllowed, NotAuthenticated

_CHALLENGE = ((b"www-authenticate", b'Bearer realm="smallfry"'),)
_HEADERS = frozenset((b"authorization", b"x-api-key"))
#: Keys in one header that are tried, if a proxy has joined several headers with commas.
_MAX_JOINED = 8
_KEY = re.compile("[!-~]+")

RequestHeaders = Iterable[tuple[bytes, bytes]]


class Keys:
    """The accepted keys, stored as digests; a request needs one of them among those that it has.

    Parameters
    ----------
    api : iterable of str
        Keys for all routes except those of the admin; without any, these routes are open.
    admin : iterable of str
        Keys for all routes; without any, admin routes are disabled.
    """

    def __init__(self, api: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._admin = frozenset(_digest(key.encode()) for key in admin)
        self._all = frozenset(_digest(key.encode()) for key in api)
        self.required = bool(self._all)
        if self.required:
            self._all |= self._admin

    @classmethod
    def read(cls, config: Config) -> Keys:
        """Read the keys of variables, separated by commas, and of files, one per line.

        Lines that begin with ``#`` are comments.

        Raises
        ------
        ConfigError
            A file cannot be read, a file or variable holds no key, or a key has an invalid character.
        """
        return cls(_read(config, "api_keys", "api_keys_file"), _read(config, "admin_key", "admin_key_file"))

    @property
    def has_admin(self) -> bool:
        """Whether there is an admin key."""
        return bool(self._admin)

    def accept(self, headers: RequestHeaders) -> bool:
        """Whether a request may see the data: it has an accepted key, or none is required."""
        return not self.required or _is_among(_keys(headers), self._all)

    def check(self, headers: RequestHeaders) -> None:
        """Check that a request has an accepted key.

        Raises
        ------
        NotAuthenticated
            It has no key, or an unknown one.
        """
        keys = _keys(headers)
        if not _is_among(keys, self._all):
            raise _not_authenticated(keys)

    def check_admin(self, headers: RequestHeaders) -> None:
        """Check that a request has the admin key.

        Raises
        ------
        NotAllowed
            The server has no admin key, or the request's key is only for lookups.
        NotAuthenticated
            The request has no key, or an unknown one.
        """
        if not self._admin:
            raise NotAllowed(
                "changing models is disabled; start the server with --admin-key-file or SMALLFRY_ADMIN_KEY"
            )
        keys = _keys(headers)
        if _is_among(keys, self._admin):
            return
        if self.required and _is_among(keys, self._all):
            raise NotAllowed("this key is for lookups; changing models takes the admin key")
        raise _not_authenticated(keys)


def _read(config: Config, variable: str, file: str) -> list[str]:
    """Return the keys of an option that is a variable, and of one that is a file."""
    keys = []
    if (text := getattr(config, variable)) is not None:
        keys += _parse(text.split(","), "key", f"{PREFIX}{variable.upper()}")
    if (path := getattr(config, file)) is not None:
        try:
            lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"the keys in {path} cannot be read: {reason}") from None
        keys += _parse(["" if line.lstrip().startswith("#") else line for line in lines], "line", path)
    return keys


def _parse(parts: Sequence[str], unit: str, source: str) -> list[str]:
    """Return the keys of a source."""
    keys = {number: key for number, part in enumerate(parts, 1) if (key := part.strip(" \t\r\n"))}
    for number, key in keys.items():
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"{unit} {number} of {source} is not a key; "
                "it has to be visible ASCII characters without spaces"
            )
    if not keys:
        raise ConfigError(f"{source} holds no key; give it one, or leave the option out")
    return list(keys.values())


def _keys(headers: RequestHeaders) -> list[bytes]:
    """Return all keys of a request, from any number of headers."""
    keys = []
    for name, value in [pair for pair in headers if pair[0] in _HEADERS]:
        # A key may hold a comma, and a proxy joins headers with commas.
        parts = [value, *value.split(b",", _MAX_JOINED)[:_MAX_JOINED]] if b"," in value else [value]
        if name == b"x-api-key":
            keys += [part.strip() for part in parts]
            continue
        for part in parts:
            scheme, _, key = part.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
    return keys


def _is_among(keys: list[bytes], digests: frozenset[bytes]) -> bool:
    """Look up the digests of keys; the time tells nothing about keys, as nobody can choose a digest."""
    return not digests.isdisjoint(map(_digest, keys))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _not_authenticated(keys: list[bytes]) -> NotAuthenticated:
    problem = "the key is unknown, and one is required" if any(keys) else "a key is required"
    return NotAuthenticated(
        f"{problem}: Authorization: Bearer KEY, or X-API-Key: KEY",
        param="Authorization",
        headers=_CHALLENGE,
    )
