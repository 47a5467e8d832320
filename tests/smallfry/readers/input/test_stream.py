import errno
import io
import os
import tempfile
from contextlib import ExitStack

import pytest

from smallfry.readers.input.stream import InputStream


def test_declared_size_takes_no_memory():
    stream = InputStream(io.BytesIO(b"data"))
    assert stream.read(10**15) == b"data"
    assert stream.sha256 is not None


def test_seekable_plain_file_is_not_copied(tmp_path):
    (tmp_path / "x").write_bytes(b"data")
    with ExitStack() as stack:
        stream = InputStream(tmp_path / "x")
        stack.callback(stream.close)
        file = stream.seekable(stack)
        assert os.fstat(file.fileno()).st_ino == (tmp_path / "x").stat().st_ino
        assert stream.read(10) == b"data"


def test_seekable_copy_of_a_pipe():
    with ExitStack() as stack:
        file = InputStream(io.BytesIO(b"data")).seekable(stack)
        file.seek(2)
        assert file.read() == b"ta"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_reported_with_the_folder(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: open("/dev/full", "wb", buffering))
    with ExitStack() as stack, pytest.raises(OSError, match="<input> needs a temporary copy there") as caught:
        InputStream(io.BytesIO(b"data")).seekable(stack)
    assert caught.value.filename == tempfile.gettempdir()


def test_error_of_reading_names_the_file():
    class Broken(io.BytesIO):
        name = "folder/v.txt"

        def read(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match=r"Input/output error: 'v.txt'"):
        InputStream(Broken())
