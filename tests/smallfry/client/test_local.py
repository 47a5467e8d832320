"""Local files that cannot be opened, or not looked up in."""

import os

import numpy as np
import pytest

import smallfry
from smallfry.client import FileError, Unprocessable


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.sfq", "No such file or directory. Please check the path"),
        ("folder", "Is a directory"),
        ("x" * 300, "File name too long"),
        ("empty.sfq", "the file has 0 bytes"),
        ("broken.sfq", "this is not a .sfq file"),
    ],
)
def test_file_that_cannot_be_opened_is_named(connect, tmp_path, monkeypatch, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.sfq").touch()
    (tmp_path / "broken.sfq").write_bytes(b"x" * 100)
    monkeypatch.chdir(tmp_path)
    for url in (f"file:{name}", f"file://{tmp_path / name}"):
        with pytest.raises(FileError, match=message) as caught:
            connect(url)
        assert name in str(caught.value)


def test_file_without_permission_is_named(connect, tmp_path):
    (tmp_path / "secret.sfq").touch(mode=0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # Root may read every file.
    try:
        with pytest.raises(FileError, match=r"Permission denied.*permissions of the file"):
            connect(f"file://{tmp_path}/secret.sfq")
    finally:
        os.seteuid(user)


def test_file_without_vocabulary_has_no_tokens(connect, tmp_path):
    smallfry.save(tmp_path / "rows.sfq", smallfry.quantize(np.eye(4, dtype=np.float32), 8))
    with pytest.raises(Unprocessable, match="has no vocabulary"):
        connect(f"file://{tmp_path}/rows.sfq").lookup(["a"])
