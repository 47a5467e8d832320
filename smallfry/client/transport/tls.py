"""TLS contexts, and the errors of handshakes."""

from __future__ import annotations

import ssl

from smallfry.client.errors import TlsError
from smallfry.client.transport.address import Address

_TRUST = "To trust its authority, pass ssl_context=ssl.create_default_context(cafile=PATH)."
_RENEW = "Please renew the server's certificate, or set this machine's clock."
_RENAME = "Please use a host that the certificate names as base URL, or renew the certificate with this one."

# By OpenSSL's X509_V_ERR_*: not yet valid, expired; other host name, other IP address.
_REMEDIES = {9: _RENEW, 10: _RENEW, 62: _RENAME, 64: _RENAME}


def tls_context(address: Address, context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return the TLS context for an https address, None for other addresses."""
    if address.scheme != "https":
        return None
    return context or ssl.create_default_context()


def tls_error(address: Address, reason: Exception | None) -> TlsError | None:
    """Return the error if TLS failed, None if the connection ended for another reason."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(reason.verify_code, _TRUST)
        return TlsError(
            f"the certificate of {address} is rejected: {reason.verify_message.rstrip('.')}. {remedy}"
        )
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ended):
        return TlsError(
            f"TLS with {address} failed: {reason.reason or reason}. If the server speaks plain HTTP there, "
            "use http://; if it requires a client certificate, pass ssl_context= with one loaded."
        )
    return None
