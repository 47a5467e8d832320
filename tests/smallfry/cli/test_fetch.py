from pathlib import Path

import pytest

from smallfry import cli
from tests.helpers.servers import Server, write_sfq


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "keys").write_text("secret\n")
    (folder / "wrong").write_text("other\n")
    (folder / "empty").write_text("\n")
    server = Server(write_sfq(folder / "glove.sfq"), "--api-keys-file", str(folder / "keys"), forked=True)
    yield server, folder
    server.stop()


@pytest.fixture
def fetch(source, tmp_path):
    server, folder = source

    def run(key="keys", model="glove"):
        words = ["fetch", f"{server.address}/models/{model}", "-o", str(tmp_path / "copy.sfq")]
        return cli.main([*words, "--api-key-file", str(folder / key)])

    return run


def test_the_file_is_the_served_one(fetch, source, tmp_path, capsys):
    assert fetch() == 0
    assert (tmp_path / "copy.sfq").read_bytes() == (source[1] / "glove.sfq").read_bytes()
    assert capsys.readouterr().out == f"{tmp_path}/copy.sfq: downloaded\n"


def test_an_empty_key_is_rejected(fetch, source, capsys):
    assert fetch("empty") == 1
    assert f"{source[1]}/empty holds no key" in capsys.readouterr().err


def test_a_file_with_the_same_digest_is_kept(fetch, tmp_path, capsys):
    fetch()
    before = (tmp_path / "copy.sfq").stat()
    capsys.readouterr()
    assert fetch() == 0
    assert (tmp_path / "copy.sfq").stat() == before
    assert capsys.readouterr().out == f"{tmp_path}/copy.sfq: up to date\n"


def test_a_damaged_file_is_replaced(fetch, source, tmp_path):
    served = (source[1] / "glove.sfq").read_bytes()
    (tmp_path / "copy.sfq").write_bytes(served[:-1] + bytes([served[-1] ^ 1]))
    assert fetch() == 0
    assert (tmp_path / "copy.sfq").read_bytes() == served


def test_a_replaced_file_keeps_its_mode_and_its_link(fetch, source, tmp_path):
    file = tmp_path / "file.sfq"
    file.write_bytes(b"")
    file.chmod(0o600)
    (tmp_path / "copy.sfq").symlink_to(file)
    assert fetch() == 0
    assert (tmp_path / "copy.sfq").is_symlink()
    assert file.read_bytes() == (source[1] / "glove.sfq").read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_an_error(source, tmp_path, capsys):
    output = tmp_path / "missing" / "copy.sfq"
    assert cli.main(["fetch", f"{source[0].address}/models/glove", "-o", str(output)]) == 1
    assert "No such folder to write to" in capsys.readouterr().err


@pytest.mark.parametrize(("request_of", "reason"), [({"key": "wrong"}, "401"), ({"model": "other"}, "404")])
def test_a_rejected_request_writes_nothing(fetch, tmp_path, capsys, request_of, reason):
    assert fetch(**request_of) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "copy.sfq").exists()


@pytest.mark.parametrize("url", ["glove", "http://127.0.0.1:8000"])
def test_an_address_without_a_model_is_an_error(url, capsys):
    assert cli.main(["fetch", url, "-o", "copy.sfq"]) == 1
    assert "expected http://HOST:PORT/models/NAME" in capsys.readouterr().err
    assert not Path("copy.sfq").exists()
