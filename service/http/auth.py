"""Who may ask: API keys, and the admin key that may change what is served."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.errors import ConfigError, NotAllowed, NotAuthenticated

_CHALLENGE = ((b"www-authenticate", b'Bearer realm="smallfry"'),)


class Keys:
    """The keys that the server knows, kept as digests.

    Parameters
    ----------
    api : iterable of str
        Keys for every route but the admin's; with none of them, these routes are open.
    admin : iterable of str
        Keys for every route; with none of them, nobody is admin.
    """

    def __init__(self, api: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._admin = [_digest(key.encode()) for key in admin]
        self._all = [_digest(key.encode()) for key in api]
        self.required = bool(self._all)
        if self.required:
            self._all += self._admin

    @property
    def has_admin(self) -> bool:
        """Whether any key may change what is served."""
        return bool(self._admin)

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass whose key is known.

        Raises
        ------
        NotAuthenticated
            It has none, or another one.
        """
        if not _is_among(_given(headers), self._all):
            raise _not_authenticated()

    def check_admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass whose key is an admin's.

        Raises
        ------
        NotAllowed
            The server has no admin key, or the request's key is for lookups alone.
        NotAuthenticated
            The request has no key, or one that the server does not know.
        """
        if not self._admin:
            raise NotAllowed(
                "changing what is served is off; start the server with --admin-key-file or SMALLFRY_ADMIN_KEY"
            )
        given = _given(headers)
        if _is_among(given, self._admin):
            return
        if given is not None and self.required and _is_among(given, self._all):
            raise NotAllowed("this key is for lookups; changing what is served takes the admin key")
        raise _not_authenticated()


def read_keys(file: str | None, variable: str | None) -> list[str]:
    """Return the keys of a file, one a line, and of a variable, separated by commas.

    Raises
    ------
    ConfigError
        The file cannot be read or holds no key.
    """
    keys = _split((variable or "").split(","))
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"the keys in {file} cannot be read: {reason}") from None
        found = [key for key in _split(lines) if not key.startswith("#")]
        if not found:
            raise ConfigError(f"{file} holds no key; it takes one a line")
        keys += found
    return keys


def _split(parts: Iterable[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _given(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key")


def _is_among(key: bytes | None, digests: Iterable[bytes]) -> bool:
    """Compare with all of them: neither which one nor how much of it fits shows in the time."""
    if key is None:
        return False
    digest = _digest(key)
    return sum([hmac.compare_digest(digest, known) for known in digests]) > 0


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _not_authenticated() -> NotAuthenticated:
    return NotAuthenticated(
        "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY",
        param="Authorization",
        headers=_CHALLENGE,
    )
