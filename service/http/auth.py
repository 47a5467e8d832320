"""Authentication: API keys, and the admin key for changing the served models."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.errors import ConfigError, NotAllowed, NotAuthenticated

_CHALLENGE = ((b"www-authenticate", b'Bearer realm="smallfry"'),)


class Keys:
    """The accepted keys, stored as digests.

    Parameters
    ----------
    api : iterable of str
        Keys for all routes except those of the admin; without any, these routes are open.
    admin : iterable of str
        Keys for all routes; without any, admin routes are disabled.
    """

    def __init__(self, api: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._admin = [_digest(key.encode()) for key in admin]
        self._all = [_digest(key.encode()) for key in api]
        self.required = bool(self._all)
        if self.required:
            self._all += self._admin

    @property
    def has_admin(self) -> bool:
        """Whether there is an admin key."""
        return bool(self._admin)

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Check that a request has an accepted key.

        Raises
        ------
        NotAuthenticated
            It has no key, or an unknown one.
        """
        if not _is_among(_key(headers), self._all):
            raise _not_authenticated()

    def check_admin(self, headers: Mapping[bytes, bytes]) -> None:
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
        key = _key(headers)
        if _is_among(key, self._admin):
            return
        if key is not None and self.required and _is_among(key, self._all):
            raise NotAllowed("this key is for lookups; changing models takes the admin key")
        raise _not_authenticated()


def read_keys(file: str | None, variable: str | None) -> list[str]:
    """Return the keys of a file, one per line, and of a variable, separated by commas.

    Raises
    ------
    ConfigError
        The file cannot be read, or the file or the variable holds no key.
    """
    keys = _split((variable or "").split(","))
    if variable and not keys:
        raise ConfigError(f"a variable of keys is {variable!r}, without a key; unset it, or give it keys")
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"the keys in {file} cannot be read: {reason}") from None
        found = [key for key in _split(lines) if not key.startswith("#")]
        if not found:
            raise ConfigError(f"{file} holds no key; it takes one per line")
        keys += found
    return keys


def _split(parts: Iterable[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key")


def _is_among(key: bytes | None, digests: Iterable[bytes]) -> bool:
    """Compare with all digests in constant time."""
    if key is None:
        return False
    digest = _digest(key)
    return sum([hmac.compare_digest(digest, known) for known in digests]) > 0


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _not_authenticated() -> NotAuthenticated:
    return NotAuthenticated(
        "a key is required: Authorization: Bearer KEY, or X-API-Key: KEY",
        param="Authorization",
        headers=_CHALLENGE,
    )
