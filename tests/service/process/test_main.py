"""Starting the server, and the errors that prevent it."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import main
from smallfry import __version__
from tests.helpers.certificates import make_certificate
from tests.helpers.servers import flags, write_sfq


@pytest.fixture
def fails(capsys, monkeypatch):
    """Start a server that fails with an exit code; return the one line of its error."""
    for name in [name for name in os.environ if name.startswith("SMALLFRY_")]:
        monkeypatch.delenv(name)

    def starter(*arguments, code=1):
        assert main(flags(arguments)) == code
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return starter


def test_banner_lists_models_address_and_an_example(server):
    banner = "\n".join(server.banner)
    assert f"smallfry-serve {__version__}" in banner
    assert "small: 12 rows x 7 at 4 bits" in banner and "less than float32 and a dict" in banner
    assert f"listening on {server.address}" in banner
    assert f"try: curl -s {server.address}/lookup" in banner


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_command_of_the_banner_works(files, start, tmp_path):
    for options in ([], ["--uds", f"{tmp_path}/s"]):
        server = start(*files.values(), *options, SMALLFRY_API_KEYS="secret")
        command = server.banner[-1].removeprefix("try: ")
        output = subprocess.check_output(
            command, shell=True, env=os.environ | {"API_KEY": "secret"}, text=True
        )
        assert '"found":[true]' in output
        assert command.index("API_KEY") < command.index("| curl")


def test_banner_of_a_file_larger_than_its_vectors(start, tmp_path):
    server = start(write_sfq(tmp_path / "few.sfq", nbit=16))
    assert "x more than float32 and a dict" in server.banner[1]


def test_serves_on_a_unix_socket(files, start, tmp_path):
    path = tmp_path / "smallfry.sock"
    server = start(files["small"], "--uds", str(path))
    assert server.lookup({"tokens": ["the"]}).json()["found"] == [True]
    assert server.stop()[0] == 0
    assert not path.exists()


def test_reuses_the_socket_of_a_dead_server(files, start, tmp_path):
    path = tmp_path / "smallfry.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    server = start(files["small"], "--uds", str(path))
    assert server.client.get("/livez").status_code == 200


def test_flags_override_variables(files, start):
    server = start(
        "--port",
        "0",
        SMALLFRY_EMBEDDINGS=f"a={files['small']},b={files['ids']}",
        SMALLFRY_PORT="1",
        SMALLFRY_LOG_LEVEL="warning",
    )
    assert [model["name"] for model in server.client.get("/models").json()["models"]] == ["a", "b"]


def test_serves_the_files_of_a_folder(start, tmp_path):
    write_sfq(tmp_path / "a.sfq")
    write_sfq(tmp_path / "b.sfq")
    (tmp_path / "notes.txt").write_text("no model")
    server = start(tmp_path)
    assert [model["name"] for model in server.client.get("/models").json()["models"]] == ["a", "b"]


def test_loads_neither_torch_nor_a_compiler(several):
    several.lookup({"tokens": ["the"], "model": "small"})
    maps = Path(f"/proc/{several.process.pid}/maps").read_text().lower()
    for name in ("torch", "numba", "llvm", "scipy", "pandas"):
        assert f"/{name}" not in maps
    assert "/numpy/" in maps


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_fails_if_the_port_is_in_use(files, host, fails):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as other:
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        line = fails(files["small"], "--host", host, "--port", str(port))
    assert f"{host}:{port} is already in use" in line


def test_fails_if_the_unix_socket_is_in_use(files, tmp_path, fails):
    path = tmp_path / "taken.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        line = fails(files["small"], "--uds", str(path))
    assert f"{path} is already in use" in line
    assert path.exists()


def test_fails_if_uds_is_not_a_socket(files, tmp_path, fails):
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "notes.txt"):
        line = fails(files["small"], "--uds", str(path))
        assert f"{path} exists and is not a socket" in line
    assert (tmp_path / "notes.txt").exists()


def test_fails_if_a_file_is_missing(fails):
    line = fails(Path("/nowhere/glove.sfq"))
    assert "/nowhere/glove.sfq: the file does not exist" in line


def test_fails_if_a_file_is_truncated(files, tmp_path, fails):
    broken = tmp_path / "broken.sfq"
    broken.write_bytes(files["small"].read_bytes()[:-5])
    line = fails(broken)
    assert str(broken) in line


def test_fails_if_verify_finds_flipped_bytes(files, tmp_path, fails):
    content = bytearray(files["small"].read_bytes())
    content[4096] ^= 1
    flipped = tmp_path / "flipped.sfq"
    flipped.write_bytes(content)
    line = fails(flipped, "--verify")
    assert str(flipped) in line


def test_fails_if_a_file_is_not_sfq(tmp_path, fails):
    text = tmp_path / "glove.txt"
    text.write_text("the 0.1 0.2\n" * 100)
    line = fails(text)
    assert str(text) in line


def test_fails_if_a_folder_is_empty(tmp_path, fails):
    line = fails(tmp_path)
    assert str(tmp_path) in line


def test_fails_without_embeddings(fails):
    line = fails()
    assert "--embeddings" in line


def test_fails_if_two_files_have_one_name(files, tmp_path, fails):
    other = write_sfq(tmp_path / "small.sfq")
    line = fails(files["small"], other)
    assert str(files["small"]) in line and str(other) in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "--port is 'x'; it has to be a whole number"),
        (["--port", "65536"], "--port is 65536; it has to be at most 65535"),
        (["--uds", ""], "--uds is empty; give it a value, or leave it out"),
        (["--embeddings", "/models", "--embeddings", ""], "--embeddings is empty; give it a value"),
        (["--workers", "0"], "--workers is 0; it has to be at least 1"),
        (["--workers", "100000"], "--workers is 100000; it has to be at most 1024"),
        (["--embeddings"], "argument --embeddings: expected one argument; smallfry-serve --help"),
        (["glove.sfq"], "unrecognized arguments: glove.sfq; smallfry-serve --help"),
        (["--log-level", "loud"], "--log-level is 'loud'; it has to be one of critical, error"),
        (["--request-timeout", "nan"], "--request-timeout is nan"),
        (["--request-timeout", "inf"], "--request-timeout is inf; it has to be at most"),
        (["--port", "65536"], "--port is 65536; it has to be at most 65535"),
        (["--drain-delay", "7"], "--drain-delay is 7 and --shutdown-timeout 7"),
        (["--uds-mode", "999"], "--uds-mode is '999'; it has to be three octal digits such as 660"),
        (["--uds-mode", "u=rw"], "--uds-mode is 'u=rw'"),
        (["--uds-mode", "7777"], "--uds-mode is '7777'"),
        (["--keep-alive-timeout", "0"], "--keep-alive-timeout is 0; it has to be at least 1"),
        (["--root-path", "emb"], "--root-path is 'emb'; it has to be a path such as /embeddings"),
        (["--root-path", "/emb/"], "--root-path is '/emb/'"),
        (
            ["--cors-origin", "app.example"],
            "--cors-origin is 'app.example'; it has to be * or such as https://",
        ),
        (["--cors-origin", "https://app.example/"], "--cors-origin is 'https://app.example/'"),
        (["--forwarded-allow-ips", "10.0.0.0/33"], "--forwarded-allow-ips: '10.0.0.0/33' does not appear"),
        (["--forwarded-allow-ips", "127.0.0.1,proxy"], "--forwarded-allow-ips: 'proxy' does not appear"),
    ],
)
def test_rejects_an_invalid_flag(arguments, words, fails):
    line = fails(*arguments, code=2)
    assert words in line


@pytest.mark.parametrize("item", ["=", "glove=", "=glove.sfq"])
def test_fails_if_the_name_or_path_of_a_file_is_empty(item, fails):
    line = fails("--embeddings", item)
    assert f"'{item}' has an empty name or path" in line


def test_rejects_an_invalid_variable(monkeypatch, fails):
    monkeypatch.setenv("SMALLFRY_ACCESS_LOG", "perhaps")
    line = fails(code=2)
    assert "SMALLFRY_ACCESS_LOG is 'perhaps'" in line


def test_fails_if_a_tls_key_has_no_certificate(files, fails):
    line = fails(files["small"], "--ssl-keyfile", "key.pem")
    assert "need --ssl-certfile" in line


@pytest.mark.parametrize("name", ["SSL_CA_CERTS", "SSL_KEYFILE_PASSWORD"])
def test_fails_if_a_tls_variable_has_no_certificate(files, fails, monkeypatch, name):
    monkeypatch.setenv(f"SMALLFRY_{name}", "value")
    line = fails(files["small"])
    assert name.lower().replace("_", "-") in line.lower().replace("_", "-") and "need --ssl-certfile" in line


def test_fails_if_certificate_authorities_cannot_be_read(files, fails, tmp_path):
    certificate, key = make_certificate(tmp_path)
    options = [
        "--ssl-certfile",
        certificate,
        "--ssl-keyfile",
        key,
        "--ssl-ca-certs",
        str(tmp_path / "none.pem"),
    ]
    line = fails(files["small"], *options)
    assert "none.pem: No such file" in line


@pytest.mark.parametrize("name", ["API_KEYS", "API_KEYS_FILE", "ADMIN_KEY", "ADMIN_KEY_FILE", "SSL_CERTFILE"])
def test_fails_if_a_variable_that_protects_the_server_is_empty(files, fails, monkeypatch, name):
    monkeypatch.setenv(f"SMALLFRY_{name}", "")
    line = fails(files["small"], code=2)
    assert f"SMALLFRY_{name} is empty" in line


def warnings(server):
    """Stop a server; return the warnings of its log."""
    code, log = server.stop()
    assert code == 0
    return [line for line in log.splitlines() if " WARNING " in line]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_without_keys_that_other_machines_reach_warns_once(files, start, workers):
    options = ["--host", "0.0.0.0", "--workers", workers]
    (line,) = warnings(start(files["small"], *options, SMALLFRY_ADMIN_KEY="admin"))
    assert (
        "without keys" in line and "set --api-keys-file or SMALLFRY_API_KEYS" in line and "(--host)" in line
    )


def test_a_server_on_a_unix_socket_or_with_keys_does_not_warn(files, start, tmp_path):
    assert warnings(start(files["small"], "--uds", str(tmp_path / "socket"), "--host", "0.0.0.0")) == []
    assert warnings(start(files["small"], "--host", "0.0.0.0", SMALLFRY_API_KEYS="secret")) == []


def test_a_server_that_requires_client_certificates_does_not_warn(files, start, tmp_path):
    certificate, key = make_certificate(tmp_path)
    options = ["--ssl-certfile", certificate, "--ssl-keyfile", key]
    assert len(warnings(start(files["small"], "--host", "0.0.0.0", *options))) == 1
    assert warnings(start(files["small"], "--host", "0.0.0.0", *options, "--ssl-ca-certs", certificate)) == []


def test_fails_if_a_key_file_is_empty(files, tmp_path, fails):
    keys = tmp_path / "keys"
    keys.write_text("# none\n")
    line = fails(files["small"], "--api-keys-file", str(keys))
    assert "holds no key" in line


def test_the_process_reports_a_failed_start_in_one_line():
    command = [sys.executable, "-m", "service", "--embeddings", "/nowhere/glove.sfq"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("smallfry-serve: /nowhere/glove.sfq") and done.stderr.count("\n") == 1
