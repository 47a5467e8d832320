"""The arguments and variables of the application on Ray Serve."""

import logging
import os

import pytest

from service.errors import ConfigError
from service.ray.serve import app


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """Set variables ``SMALLFRY_*``, and no others."""
    for name in [name for name in os.environ if name.startswith("SMALLFRY_")]:
        monkeypatch.delenv(name)

    def set(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"SMALLFRY_{name}", value)

    return set


def warnings(caplog, **arguments):
    with caplog.at_level(logging.WARNING, "smallfry.server"):
        app({"embeddings": "/models"} | arguments)
    return [record.getMessage() for record in caplog.records]


def test_an_application_without_keys_warns_once(caplog):
    (message,) = warnings(caplog)
    assert "set api_keys_file or SMALLFRY_API_KEYS" in message


def test_an_application_with_keys_does_not_warn(caplog, environ):
    assert warnings(caplog, api_keys_file="/keys") == []
    environ(API_KEYS="secret")
    assert warnings(caplog) == []


@pytest.mark.parametrize("name", ["SSL_CERTFILE", "SSL_CA_CERTS"])
def test_a_variable_of_tls_is_an_error(environ, name):
    environ(**{name: "/file.pem"})
    with pytest.raises(ConfigError, match=f"SMALLFRY_{name} has no effect on Ray Serve"):
        app({"embeddings": "/models"})


def test_a_misspelt_variable_is_an_error(environ):
    environ(API_KEY="secret")
    with pytest.raises(ConfigError, match="did you mean SMALLFRY_API_KEYS"):
        app({"embeddings": "/models"})


def test_variables_of_addresses_are_ignored(environ):
    environ(HOST="0.0.0.0", PORT="8000", CACHE="/cache", MODELS_PER_REPLICA="2")
    app({"embeddings": "/models"})
