"""Verification: one file at a time, and each version once."""

import os
from threading import Thread

import pytest

from service.models import verifier
from service.models.verifier import Verifier
from smallfry.errors import DigestError
from smallfry.sfq import file as sfq
from tests.helpers.errors import error_of
from tests.helpers.metrics import gauge
from tests.helpers.servers import write_sfq


@pytest.fixture
def verified(monkeypatch):
    """Return the paths that are verified."""
    paths, verify_file = [], verifier.verify_file

    def verify(file):
        paths.append(file.path.name)
        return verify_file(file)

    monkeypatch.setattr(verifier, "verify_file", verify)
    return paths


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.with_suffix(".new").write_bytes(content)
    os.replace(path.with_suffix(".new"), path)


def test_each_version_of_a_file_is_verified_once(tmp_path, verified):
    path, each = write_sfq(tmp_path / "a.sfq"), Verifier()
    for _ in range(3):
        each.check(sfq.map(path))
    os.rename(path, tmp_path / "b.sfq")
    each.check(sfq.map(tmp_path / "b.sfq"))
    assert verified == ["a.sfq"]
    os.utime(tmp_path / "b.sfq")
    each.check(sfq.map(tmp_path / "b.sfq"))
    assert verified == ["a.sfq", "b.sfq"]


def test_a_file_that_fails_is_rejected_each_time_and_verified_once(tmp_path, verified):
    path, each = write_sfq(tmp_path / "a.sfq"), Verifier()
    flip(path)
    for _ in range(3):
        with pytest.raises(DigestError, match=r"a\.sfq: tensor"):
            each.check(sfq.map(path))
    assert verified == ["a.sfq"]


def test_threads_verify_a_file_once(tmp_path, verified):
    file, each = sfq.map(write_sfq(tmp_path / "a.sfq")), Verifier()
    threads = [Thread(target=each.check, args=(file,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verified == ["a.sfq"]


def test_reloads_of_a_file_that_fails_change_nothing(tmp_path, start):
    path = write_sfq(tmp_path / "a.sfq")
    server = start(path, "--verify")
    assert server.client.post("/models/a/reload").status_code == 200
    flip(path)
    for _ in range(3):
        assert "SHA-256" in error_of(server.client.post("/models/a/reload"), 409)["message"]
    assert gauge(server, "smallfry_failed_files") == 1
    assert server.lookup({"tokens": ["the"]}).json()["found"] == [True]
