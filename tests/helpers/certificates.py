"""Self-signed certificates for tests of TLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path, days: int = 1) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1 and its key; skip the test if openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the certificate of the test")
    certificate, key, extensions = folder / "certificate.pem", folder / "key.pem", folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1")
    for command in (
        f"openssl req -new -newkey rsa:2048 -nodes -subj /CN=test -keyout {key} -out request",
        f"openssl x509 -req -in request -signkey {key} -days {days} -extfile extensions -out {certificate}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True, cwd=folder)
    return str(certificate), str(key)
