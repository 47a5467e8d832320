import os
import threading
from contextlib import ExitStack

import pytest

from smallfry.errors import InputError
from smallfry.readers import words as module
from smallfry.readers.options import ReadOptions
from smallfry.readers.report import ReadReport
from smallfry.readers.words import open_words
from tests.helpers.readers import words as unpack


def read_list(path, rows, step=3, **options):
    """Return the words of a list, taken `step` at a time, and the report."""
    report = ReadReport("npy")
    with ExitStack() as stack:
        words = open_words(path, rows, ReadOptions(**options), report, stack)
        found = []
        for begin in range(0, rows, step):
            found += unpack(words.take(min(step, rows - begin)))
        words.finish()
    return found, report


@pytest.fixture
def save(tmp_path):
    def save(text, name="words.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return save


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 21])
def test_words_are_the_same_for_any_block_size(save, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    expected = [f"w{i}" for i in range(20)] + ["", "New York", "é"]
    assert read_list(save("\r\n".join(expected)), len(expected))[0] == expected


@pytest.mark.parametrize("rows", [2, 4])
def test_words_of_a_pipe_are_counted_as_they_are_read(tmp_path, rows):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a\nb\nc\n",))
    writer.start()
    with pytest.raises(InputError, match="does not match number of vectors"):
        read_list(pipe, rows)
    writer.join()
