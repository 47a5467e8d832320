"""Requests that web pages send to a server without keys: those of other origins are rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from service.config import Config
from service.errors import NotAllowed

#: Values of ``Sec-Fetch-Site`` of requests by the user, and by the server's own pages.
_OWN = frozenset({b"none", b"same-origin"})
#: Hosts that no page of another site can have: IP addresses, names without a dot, and those of this machine.
_LOCAL = re.compile(rb"([0-9.]+|\[[0-9a-fA-F:.%]+\]|[^.:\[\]]*|([^:]+\.)?localhost)(:[0-9]*)?", re.IGNORECASE)
_MAX_HOST = 256


class PageGuard:
    """Rejects requests from web pages of other origins, unless the options allow these.

    Any page may send requests to a server on this machine or in its network, without seeing the responses.
    Browsers say where a request comes from: ``Sec-Fetch-Site`` if the server is on this machine or has TLS,
    ``Origin`` also otherwise, except for GET. A page whose name resolves to the server's address (DNS
    rebinding) is of the same origin; a server that listens on this machine only rejects such names.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self._allowed = frozenset(origin.encode("latin-1") for origin in config.cors_origin)
        self._local = config.uds is None and config.forwarded_allow_ips is None and config.is_local
        self._any = b"*" in self._allowed

    def check(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Check that a request is not from a page of another origin.

        Raises
        ------
        NotAllowed
            It is, and the origin is not allowed; or the server's name is not one of this machine.
        """
        if self._local and (len(host := headers.get(b"host", b"")) > _MAX_HOST or not _is_local(host)):
            raise NotAllowed(
                f"the server listens on this machine only, which is not called {host.decode('latin-1')!r}; "
                "use localhost, or behind a proxy set --forwarded-allow-ips or --api-keys-file",
                param="Host",
            )
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if (site is None and origin is None) or site in _OWN or self._any or origin in self._allowed:
            return
        if site is None:
            assert origin is not None
            if origin.partition(b"://")[2] == headers.get(b"host"):
                return
        elif method == "GET" and headers.get(b"sec-fetch-mode") == b"navigate":
            return  # a link
        raise NotAllowed(
            "a web page of another origin sent this request; allow it with --cors-origin", param="Origin"
        )


@lru_cache(maxsize=64)
def _is_local(host: bytes) -> bool:
    return _LOCAL.fullmatch(host) is not None
