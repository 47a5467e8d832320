import os
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smallfry.errors import InputError
from smallfry.readers.options import ReadOptions
from smallfry.readers.report import ReadReport
from smallfry.readers.words.open import open_words
from tests.helpers.readers import read
from tests.helpers.word_lists import TOKENS, lines, read_list


@pytest.mark.parametrize("rows", [2, 4])
def test_words_of_a_pipe_are_counted_as_they_are_read(tmp_path, rows):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a\nb\nc\n",))
    writer.start()
    with pytest.raises(InputError, match="does not match number of vectors"):
        read_list(pipe, rows)
    writer.join()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1251"])
def test_encodings(save, encoding):
    path = save("мир\t9\nдом\t8\n".encode(encoding))
    options = {} if encoding != "cp1251" else {"encoding": encoding}
    assert read_list(path, 2, **options)[0] == ["мир", "дом"]


@pytest.mark.parametrize(
    "text, message",
    [
        (lines("0.{n}"), "a number in each line"),
        ("#version: 0.2\nĠ t\n" + "h e\n" * 28, "BPE merges"),
        ("<!DOCTYPE html>\n" * 30, "an HTML or XML page"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"\x80\x04\x95" + bytes(100), "a pickle"),
        (b"SQLite format 3\0" + bytes(100), "an SQLite database"),
        (bytes(range(256)) * 10, "a binary file"),
        (lines("0.1 0.2 0.3"), "vectors without tokens"),
        (lines("{t}").replace("\n", "\r"), r"Number of words \(1\)"),
        (lines("{t}\n"), r"Number of words \(59\) does not match number of vectors \(30\)"),
    ],
)
def test_other_files_are_rejected(save, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_list(save(text), 30)
    assert len(str(caught.value)) <= 500


LISTS = st.lists(
    st.sampled_from(["a", "b c", " ", "\t", ",", '"', ";", "\r", "\n", "\n", "7", "0", "word", "[", "{", ":"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(LISTS.map("".join).map(str.encode), st.binary(max_size=100)),
    st.sampled_from([0, 1, 2, 3, 5, None]),
)
def test_any_file_is_read_or_rejected(save, data, rows):
    try:
        with ExitStack() as stack:
            words = open_words(save(data), rows, ReadOptions(words="words"), ReadReport(""), stack)
            found = words.take_all() if rows is None else words.take(rows)
            assert rows in (None, len(found.offsets) - 1)
            words.finish()
    except InputError as error:
        assert len(str(error)) <= 500


@pytest.fixture
def matrix(tmp_path):
    path = tmp_path / "v.300d.npy"
    np.save(path, np.arange(90, dtype=np.float32).reshape(30, 3))
    return path


@pytest.mark.parametrize("name", ["v.300d.txt", "v.txt", "v.300d.vocab", "v.vocab"])
def test_a_list_next_to_a_matrix_is_read_and_named(save, matrix, name):
    save(lines("{t} 0.1 0.2 0.3"), name)
    tokens, _, report = read(matrix)
    assert tokens == TOKENS
    assert report.notes() == [f"words: {name} (tokens of text vectors of dim 3)"]


@pytest.mark.parametrize(
    "text", ["About these vectors.\n", "<!doctype html>\n", lines("{t}\t{n}").replace("\t876", "")]
)
def test_a_neighbor_that_is_no_list_of_the_rows_is_an_error(save, matrix, text):
    save(text, "v.txt")
    with pytest.raises(InputError, match=r"v\.txt.*pass --words FILE .* --no-words"):
        read(matrix)
    tokens, _, report = read(matrix, words=False)
    assert tokens is None
    assert report.words == ""
