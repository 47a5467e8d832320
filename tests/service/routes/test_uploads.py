"""Uploads: the files that ``PUT /models/{name}`` replaces, and those that it does not."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

import smallfry
from service.errors import Conflict
from service.models.sources import Sources
from tests.helpers.errors import error_of
from tests.helpers.servers import eventually, write_sfq

KEY = {"SMALLFRY_ADMIN_KEY": "the-admin-key"}
ADMIN = {"authorization": "Bearer the-admin-key"}


def digest(server, name):
    return server.client.get(f"/models/{name}").json()["digest"]


@pytest.fixture
def uploads(tmp_path, start):
    """A server over two folders and files outside them, and what a function uploads to it."""
    for path in ("first/a", "first/.b", "second/b", "second/dots.6B.300d", "outside/named", "outside/file"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_sfq(tmp_path / f"{path}.sfq")
    (tmp_path / "first" / "linked.sfq").symlink_to("../outside/file.sfq")
    os.link(tmp_path / "outside" / "file.sfq", tmp_path / "second" / "hard.sfq")
    (tmp_path / "first" / "beside.sfq").symlink_to("a.sfq")
    return start(
        tmp_path / "first",
        tmp_path / "second",
        tmp_path / "outside" / "file.sfq",
        *("--embeddings", f"named={tmp_path}/outside/named.sfq"),
        *("--embeddings", f"renamed={tmp_path}/second/b.sfq"),
        *("--embeddings", f"missing={tmp_path}/nowhere/missing.sfq"),
        **KEY,
    )


def contents(folder):
    """Return the contents of files and the targets of links in the folders of a folder."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.glob("*/*.sfq")
    }


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a", "first/a.sfq"),
        ("b", "second/b.sfq"),
        ("dots.6B.300d", "second/dots.6B.300d.sfq"),
        ("new", "first/new.sfq"),
        ("new.sfq", "first/new.sfq.sfq"),
        ("A", "first/A.sfq"),
        ("hard", "second/hard.sfq"),
        ("linked", "first/linked.sfq"),
        ("beside", "first/beside.sfq"),
    ],
)
def test_upload_replaces_only_the_file_of_its_name_in_a_folder(uploads, tmp_path, name, file):
    new = write_sfq(tmp_path / "new", seed=5).read_bytes()
    before = contents(tmp_path)
    response = uploads.client.put(f"/models/{name}", content=new, headers=ADMIN)
    assert response.status_code == (200 if file in before else 201)
    assert contents(tmp_path) == before | {file: new}
    # The next start serves it under this name, too.
    uploads.process.send_signal(signal.SIGHUP)
    assert digest(uploads, name) == response.json()["digest"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("named", "--embeddings names a file for 'named'"),
        ("file", "--embeddings names a file for 'file'"),
        ("renamed", "--embeddings names a file for 'renamed'"),
        ("missing", "--embeddings names a file for 'missing'"),
        (
            "alias",
            "served from a.sfq, and an upload replaces only alias.sfq; remove the model first (DELETE)",
        ),
    ],
)
def test_upload_replaces_no_other_file(uploads, tmp_path, name, words):
    uploads.client.put("/models/alias", json={"path": "a.sfq"}, headers=ADMIN)
    new = write_sfq(tmp_path / "new", seed=5).read_bytes()
    before = contents(tmp_path)
    error = error_of(uploads.client.put(f"/models/{name}", content=new, headers=ADMIN), 409)
    assert words in error["message"] and str(tmp_path) not in error["message"]
    assert contents(tmp_path) == before


def test_a_removed_model_can_be_uploaded_to_its_folder(uploads, tmp_path):
    new = write_sfq(tmp_path / "new", seed=5).read_bytes()
    uploads.client.put("/models/alias", json={"path": "a.sfq"}, headers=ADMIN)
    for name, file in (("alias", "first/alias.sfq"), ("b", "second/b.sfq")):
        uploads.client.delete(f"/models/{name}", headers=ADMIN)
        assert uploads.client.put(f"/models/{name}", content=new, headers=ADMIN).status_code == 201
        assert (tmp_path / file).read_bytes() == new


def test_upload_needs_a_folder(start, tmp_path):
    path = write_sfq(tmp_path / "a.sfq")
    before = path.read_bytes()
    server = start(path, **KEY)
    for name in ("a", "b"):
        error_of(server.client.put(f"/models/{name}", content=before, headers=ADMIN), 422)
    assert path.read_bytes() == before


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a file system of 64 KB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs root, to mount a file system of 64 KB")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_upload_to_a_full_disk_keeps_the_old_file(files, start, small_disk):
    before = write_sfq(small_disk / "a.sfq").read_bytes()
    server = start(small_disk, **KEY)
    for name in ("a", "b"):
        response = server.client.put(f"/models/{name}", content=files["large"].read_bytes(), headers=ADMIN)
        error = error_of(response, 507)
        assert "No space left on device" in error["message"] and str(small_disk) not in error["message"]
    assert (small_disk / "a.sfq").read_bytes() == before
    assert os.listdir(small_disk) == ["a.sfq"]
    assert digest(server, "a") == smallfry.open(small_disk / "a.sfq").digest


def is_unnamed(descriptor, folder):
    """Return whether a descriptor is of a file in the folder that has no name."""
    with suppress(FileNotFoundError):  # closed since it was listed
        target = os.readlink(descriptor)
        return str(folder) in target and "#" in target
    return False


def test_a_killed_upload_leaves_nothing(start, tmp_path):
    before = write_sfq(tmp_path / "a.sfq").read_bytes()
    server = start(tmp_path, **KEY)
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = (
            "PUT /models/a HTTP/1.1\r\nhost: x\r\nx-api-key: the-admin-key\r\ncontent-length: 100000\r\n\r\n"
        )
        connection.sendall(head.encode() + bytes(50_000))
        descriptors = Path(f"/proc/{server.process.pid}/fd")
        eventually(lambda: any(is_unnamed(fd, tmp_path) for fd in descriptors.iterdir()))
        server.process.kill()
        server.process.wait()
    assert os.listdir(tmp_path) == ["a.sfq"] and (tmp_path / "a.sfq").read_bytes() == before


def test_upload_to_a_file_system_that_ignores_case_replaces_no_other_model(tmp_path, monkeypatch):
    write_sfq(tmp_path / "glove.sfq")
    sources = Sources([str(tmp_path)])
    assert sources.upload("GloVe") == tmp_path / "GloVe.sfq"
    monkeypatch.setattr(os.path, "lexists", lambda path: (tmp_path / path.name.lower()).exists())
    assert sources.upload("glove") == tmp_path / "glove.sfq"
    with pytest.raises(Conflict, match=r"GloVe\.sfq is the file of another model"):
        sources.upload("GloVe")


def test_a_file_that_a_concurrent_upload_creates_is_replaced(tmp_path, monkeypatch):
    sources, listdir = Sources([str(tmp_path)]), os.listdir

    def list_and_create(folder):
        entries = listdir(folder)
        write_sfq(tmp_path / "glove.sfq")
        return entries

    monkeypatch.setattr(os, "listdir", list_and_create)
    assert sources.upload("glove") == tmp_path / "glove.sfq"
