"""How the server starts, and how it does not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli import main
from smallfry import __version__
from tests.helpers.servers import Server, write_sfq

Start = Callable[..., Server]
Refuse = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Start a server that cannot; return its exit code and the one line that it says."""
    for name in [name for name in os.environ if name.startswith("SMALLFRY_")]:
        monkeypatch.delenv(name)

    def starter(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return code, lines[0]

    return starter


def test_says_what_it_serves_and_what_to_try(server: Server) -> None:
    banner = "\n".join(server.banner)
    assert f"smallfry-serve {__version__}" in banner
    assert "small: 12 rows x 7 at 4 bits" in banner and "less than float32 and a dict" in banner
    assert f"listening on {server.address}" in banner
    assert f"try: curl -s {server.address}/lookup" in banner


def test_serves_on_a_unix_socket(files: dict[str, Path], start: Start, tmp_path: Path) -> None:
    path = tmp_path / "smallfry.sock"
    server = start("--embeddings", str(files["small"]), "--uds", str(path))
    assert server.lookup({"tokens": ["the"]}).json()["found"] == [True]
    assert server.stop()[0] == 0
    assert not path.exists()


def test_takes_over_the_socket_of_a_server_that_died(
    files: dict[str, Path], start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "smallfry.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    server = start("--embeddings", str(files["small"]), "--uds", str(path))
    assert server.client.get("/livez").status_code == 200


def test_variables_set_what_flags_do_not(files: dict[str, Path], start: Start) -> None:
    server = start(
        "--port",
        "0",
        SMALLFRY_EMBEDDINGS=f"a={files['small']},b={files['ids']}",
        SMALLFRY_PORT="1",
        SMALLFRY_LOG_LEVEL="warning",
    )
    assert [model["name"] for model in server.client.get("/models").json()["models"]] == ["a", "b"]


def test_a_folder_stands_for_its_files(start: Start, tmp_path: Path) -> None:
    write_sfq(tmp_path / "a.sfq")
    write_sfq(tmp_path / "b.sfq")
    (tmp_path / "notes.txt").write_text("no model")
    server = start("--embeddings", str(tmp_path), "--port", "0")
    assert [model["name"] for model in server.client.get("/models").json()["models"]] == ["a", "b"]


def test_loads_neither_torch_nor_a_compiler(several: Server) -> None:
    several.lookup({"tokens": ["the"], "model": "small"})
    maps = Path(f"/proc/{several.process.pid}/maps").read_text().lower()
    for name in ("torch", "numba", "llvm", "scipy", "pandas"):
        assert f"/{name}" not in maps
    assert "/numpy/" in maps


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken(files: dict[str, Path], host: str, refused: Refuse) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as other:
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        code, line = refused("--embeddings", str(files["small"]), "--host", host, "--port", str(port))
    assert code == 1
    assert f"{host}:{port} is already in use" in line


def test_a_unix_socket_that_is_taken(files: dict[str, Path], tmp_path: Path, refused: Refuse) -> None:
    path = tmp_path / "taken.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        code, line = refused("--embeddings", str(files["small"]), "--uds", str(path))
    assert code == 1
    assert f"{path} is already in use" in line
    assert path.exists()


def test_a_path_for_a_unix_socket_that_is_something_else(
    files: dict[str, Path], tmp_path: Path, refused: Refuse
) -> None:
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "notes.txt"):
        code, line = refused("--embeddings", str(files["small"]), "--uds", str(path))
        assert code == 1
        assert f"{path} is there and no socket" in line
    assert (tmp_path / "notes.txt").exists()


def test_a_file_that_is_missing(refused: Refuse) -> None:
    code, line = refused("--embeddings", "/nowhere/glove.sfq")
    assert code == 1
    assert "/nowhere/glove.sfq does not exist" in line


def test_a_file_that_is_broken(files: dict[str, Path], tmp_path: Path, refused: Refuse) -> None:
    broken = tmp_path / "broken.sfq"
    broken.write_bytes(files["small"].read_bytes()[:-5])
    code, line = refused("--embeddings", str(broken))
    assert code == 1
    assert str(broken) in line


def test_flipped_bytes_are_noticed_where_it_verifies(
    files: dict[str, Path], tmp_path: Path, refused: Refuse
) -> None:
    content = bytearray(files["small"].read_bytes())
    content[4096] ^= 1
    flipped = tmp_path / "flipped.sfq"
    flipped.write_bytes(content)
    code, line = refused("--embeddings", str(flipped), "--verify")
    assert code == 1
    assert str(flipped) in line


def test_a_file_of_another_kind(tmp_path: Path, refused: Refuse) -> None:
    text = tmp_path / "glove.txt"
    text.write_text("the 0.1 0.2\n" * 100)
    code, line = refused("--embeddings", str(text))
    assert code == 1
    assert str(text) in line


def test_a_folder_without_models(tmp_path: Path, refused: Refuse) -> None:
    code, line = refused("--embeddings", str(tmp_path))
    assert code == 1
    assert str(tmp_path) in line


def test_nothing_to_serve(refused: Refuse) -> None:
    code, line = refused()
    assert code == 1
    assert "--embeddings" in line


def test_two_files_of_one_name(files: dict[str, Path], tmp_path: Path, refused: Refuse) -> None:
    other = write_sfq(tmp_path / "small.sfq")
    code, line = refused("--embeddings", str(files["small"]), "--embeddings", str(other))
    assert code == 1
    assert str(files["small"]) in line and str(other) in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "--port is 'x'; it has to be a whole number"),
        (["--port", "65536"], "--port is 65536; it has to be at most 65535"),
        (["--workers", "0"], "--workers is 0; it has to be at least 1"),
        (["--workers", "100000"], "--workers is 100000; it has to be at most 1024"),
        (["--embeddings"], "argument --embeddings: expected one argument; smallfry-serve --help"),
        (["glove.sfq"], "unrecognized arguments: glove.sfq; smallfry-serve --help"),
        (["--log-level", "loud"], "--log-level is 'loud'; it has to be one of critical, error"),
        (["--request-timeout", "nan"], "--request-timeout is nan"),
        (["--request-timeout", "inf"], "--request-timeout is inf; it has to be at most"),
        (["--port", "65536"], "--port is 65536; it has to be at most 65535"),
        (["--drain-delay", "30"], "--drain-delay is 30 and --shutdown-timeout 30"),
    ],
)
def test_a_flag_of_a_wrong_form(arguments: list[str], words: str, refused: Refuse) -> None:
    code, line = refused(*arguments)
    assert code == 2
    assert words in line


def test_a_variable_of_a_wrong_form(monkeypatch: pytest.MonkeyPatch, refused: Refuse) -> None:
    monkeypatch.setenv("SMALLFRY_ACCESS_LOG", "perhaps")
    code, line = refused()
    assert code == 2
    assert "SMALLFRY_ACCESS_LOG is 'perhaps'" in line


def test_a_key_without_a_certificate(files: dict[str, Path], refused: Refuse) -> None:
    code, line = refused("--embeddings", str(files["small"]), "--ssl-keyfile", "key.pem")
    assert code == 1
    assert "--ssl-certfile" in line


def test_a_file_of_keys_that_is_empty(files: dict[str, Path], tmp_path: Path, refused: Refuse) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# none\n")
    code, line = refused("--embeddings", str(files["small"]), "--api-keys-file", str(keys))
    assert code == 1
    assert "holds no key" in line


def test_a_process_that_cannot_start_says_so_in_one_line() -> None:
    command = [sys.executable, "-m", "service.cli", "--embeddings", "/nowhere/glove.sfq"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("smallfry-serve: /nowhere/glove.sfq") and done.stderr.count("\n") == 1
