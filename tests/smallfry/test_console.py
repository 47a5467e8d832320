import errno
import os
import sys

import pytest

from smallfry import console


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "No such file", "a\nb"), r"a\nb: No such file"),
        (OSError(errno.ENOENT, "No such file", b"a\xff"), r"a\udcff: No such file"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (MemoryError(), "not enough memory."),
        (MemoryError("Unable to allocate 1 GiB"), "not enough memory. Unable to allocate 1 GiB"),
        (ValueError("a\r\x1b[2J"), r"a\r\x1b[2J"),
        (ValueError(), "ValueError"),
    ],
)
def test_error_becomes_one_printable_line(error, text):
    assert console.sentence(error) == text


def test_long_message_keeps_its_beginning_and_end(capsys):
    console.note("beginning " + "x" * 10_000 + " end")
    message = capsys.readouterr().err
    assert len(message) == console.MAX_MESSAGE
    assert message.startswith("beginning x") and message.endswith("x end\n") and " … " in message


def test_short_message_is_unchanged():
    assert console.shorten("x" * 499) == "x" * 499


@pytest.mark.parametrize("size", [1, 100_000])
def test_error_of_writing_names_standard_output(monkeypatch, tmp_path, size):
    full = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(OSError) as error:
        console.write("x" * size)
    assert console.sentence(error.value) == "standard output: No space left on device"
    full.close()  # what was not written is discarded
    assert os.listdir(tmp_path) == []
