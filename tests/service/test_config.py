"""The options: flags and environment variables."""

import pytest

from service.config import Config, load, options, variable
from service.errors import ConfigError


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_an_empty_variable_is_an_error(option, value):
    with pytest.raises(ConfigError, match=f"{variable(option)} is empty"):
        load((), {variable(option): value}, "")


@pytest.mark.parametrize("name", ["embeddings", "cors_origin"])
def test_a_variable_of_commas_is_an_error(name):
    with pytest.raises(ConfigError, match=f"SMALLFRY_{name.upper()} is empty"):
        load((), {f"SMALLFRY_{name.upper()}": " , "}, "")


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_flag_is_an_error(value):
    for flag in ("--ssl-certfile", "--embeddings"):
        with pytest.raises(ConfigError, match=f"{flag} is empty"):
            load((flag, value), {}, "")


def test_a_flag_wins_over_an_empty_variable():
    assert load(("--host", "::1"), {"SMALLFRY_HOST": ""}, "").host == "::1"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SMALLFRY_API_KEY", "SMALLFRY_API_KEYS"),
        ("SMALLFRY_ADMIN_KEYS", "SMALLFRY_ADMIN_KEY"),
        ("SMALLFRY_SSL_CERT_FILE", "SMALLFRY_SSL_CERTFILE"),
        ("SMALLFRY_MAXBODY", "SMALLFRY_MAX_BODY"),
        ("SMALLFRY_api_keys", "SMALLFRY_"),
    ],
)
def test_a_misspelt_variable_is_an_error(name, meant):
    with pytest.raises(
        ConfigError, match=f"{name} is not a variable of the server; did you mean {meant}|--help"
    ):
        load((), {name: "value"}, "")


def test_an_unknown_variable_is_an_error():
    with pytest.raises(
        ConfigError, match="SMALLFRY_QQQ is not a variable of the server; smallfry-serve --help"
    ):
        load((), {"SMALLFRY_QQQ": ""}, "")


def test_variables_of_other_programs_are_ignored():
    environ = {
        "PATH": "",
        "API_KEY": "x",
        "MY_SMALLFRY_PORT": "x",
        "SMALLFRY_THREADS": "2",
        "SMALLFRY_NATIVE": "",
    }
    assert load((), environ, "") == Config()


def test_variables_of_kubernetes_and_docker_are_ignored():
    # Those of the Services smallfry and smallfry-gpu, whose port has the name http.
    links = {
        f"{service}_{name}": value
        for service in ("SMALLFRY", "SMALLFRY_GPU")
        for name, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "80",
            "SERVICE_PORT_HTTP": "80",
            "PORT": "tcp://10.0.0.1:80",
            "PORT_80_TCP": "tcp://10.0.0.1:80",
            "PORT_80_TCP_PROTO": "tcp",
            "PORT_80_TCP_PORT": "80",
            "PORT_80_TCP_ADDR": "10.0.0.1",
            "PORT_53_UDP": "udp://10.0.0.1:53",
        }.items()
    }
    assert load((), links, "") == Config()
    assert load((), links | {"SMALLFRY_PORT": "81"}, "").port == 81


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("server.example", False),
    ],
)
def test_only_loopback_addresses_are_local(host, local):
    assert Config(host=host).is_local == local


def test_a_unix_socket_is_local():
    assert Config(host="0.0.0.0", uds="/run/smallfry.sock").is_local
