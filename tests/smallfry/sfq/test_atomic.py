import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from smallfry.sfq import atomic
from smallfry.sfq.atomic import replacing


@pytest.fixture(params=["nameless", "named"], autouse=True)
def temporary(request, monkeypatch):
    """Run every test with files that have no name until they are complete, and with those that have one."""
    if request.param == "named":
        monkeypatch.setattr(atomic, "_open_unnamed", lambda folder: None)


def test_new_file_holds_what_was_written(tmp_path):
    with replacing(tmp_path / "new") as file:
        file.write(b"new")
    assert (tmp_path / "new").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["new"]


def test_old_file_is_replaced(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(error), replacing(tmp_path / "f") as file:
        file.write(b"new")
        raise error
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="what was there is unchanged"), replacing(tmp_path / "f") as file:
            file.write(b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_new_file_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "f"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(0o604)
    with replacing(tmp_path / "f"):
        pass
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o604


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change owners")
def test_replaced_file_keeps_its_owner(tmp_path):
    (tmp_path / "f").touch()
    os.chown(tmp_path / "f", 12, 34)
    with replacing(tmp_path / "f"):
        pass
    status = (tmp_path / "f").stat()
    assert (status.st_uid, status.st_gid) == (12, 34)


def test_owner_that_may_not_be_kept_is_the_writer(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError

    monkeypatch.setattr(os, "fchown", fail)
    (tmp_path / "f").touch(0o600)
    with replacing(tmp_path / "f"):
        pass
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_file_that_replaces_a_link_has_the_mode_of_the_old_one(tmp_path):
    (tmp_path / "real").touch(0o600)
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link", follow_symlinks=False):
        pass
    assert stat.S_IMODE((tmp_path / "link").lstat().st_mode) == 0o600


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_symbolic_link_is_replaced_if_it_is_not_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link", follow_symlinks=False) as file:
        file.write(b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "real").read_bytes() == b"old"


def test_check_reads_the_new_file_before_it_replaces_the_old(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    read = []

    def check(path):
        read.append((path.read_bytes(), (tmp_path / "f").read_bytes()))

    with replacing(tmp_path / "f", check=check) as file:
        file.write(b"new")
    assert read == [(b"new", b"old")]
    assert (tmp_path / "f").read_bytes() == b"new"


def test_failed_check_keeps_the_old_file(tmp_path):
    (tmp_path / "f").write_bytes(b"old")

    def check(path):
        raise ValueError

    with pytest.raises(ValueError), replacing(tmp_path / "f", check=check) as file:
        file.write(b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("name", [".", "missing/f"])
def test_path_that_is_not_a_file_is_rejected(tmp_path, name):
    with pytest.raises(OSError), replacing(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == []


def test_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"), replacing(tmp_path / "pipe"):
        pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_name_of_the_longest_length_can_be_written(tmp_path):
    with replacing(tmp_path / ("n" * 255)) as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["n" * 255]


def test_killed_writer_leaves_the_old_file_alone(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    program = (
        "import os, signal, sys\n"
        "from smallfry.sfq.atomic import replacing\n"
        "with replacing(sys.argv[1]) as file:\n"
        "    file.write(b'new' * 100_000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "f"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "f").read_bytes() == b"old"
    if hasattr(os, "O_TMPFILE"):
        assert os.listdir(tmp_path) == ["f"]
