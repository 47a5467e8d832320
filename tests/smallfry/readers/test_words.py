import json
import os
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smallfry.errors import InputError
from smallfry.readers import words as module
from smallfry.readers.options import ReadOptions
from smallfry.readers.report import ReadReport
from smallfry.readers.words import open_words
from tests.helpers.readers import read
from tests.helpers.readers import words as unpack


def read_list(path, rows, step=3, **options):
    """Return the words of a list, taken `step` at a time, and the report."""
    report = ReadReport("npy")
    with ExitStack() as stack:
        words = open_words(path, rows, ReadOptions(words=path, **options), report, stack)
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


TOKENS = [f"tok{i}" for i in range(30)]
RISING = list(range(30))
FALLING = list(range(900, 870, -1))
UNSORTED = [(7 * i) % 31 + 90 for i in range(30)]


def lines(template, tokens=TOKENS, numbers=FALLING):
    return "".join(template.format(t=token, n=n) + "\n" for token, n in zip(tokens, numbers, strict=True))


@pytest.mark.parametrize(
    "text, kind",
    [
        (lines("{t}"), ""),
        ("\ufeff" + lines("{t}"), ""),
        (lines("{t}  \t"), ""),
        (lines("{t}\t{n}"), " (first of 2 columns)"),
        (lines("{t}\t-{n}.25"), " (first of 2 columns)"),
        (lines("{t}\t{n}", numbers=UNSORTED), " (first of 2 columns)"),
        (lines("{t}\t{n}", numbers=RISING), " (first of 2 columns)"),
        (lines("{t}\tNOUN"), " (first of 2 columns)"),
        (lines("{t}\tNOUN\t{n}"), " (first of 3 columns)"),
        ("word\tcount\n" + lines("{t}\t{n}"), " (first of 2 columns, without the header 'word\\tcount')"),
        ("Word\tPOS\n" + lines("{t}\tNOUN"), " (first of 2 columns, without the header 'Word\\tPOS')"),
        ("n\tword\n" + lines("{n}\t{t}"), " (second of 2 columns, without the header 'n\\tword')"),
        (lines("{t} {n}"), " (first of 2 columns)"),
        (lines("{t} {n}", numbers=UNSORTED), " (first of 2 columns)"),
        (lines("{t}    {n}"), " (first of 2 columns)"),
        ("word count\n" + lines("{t} {n}"), " (first of 2 columns, without the header 'word count')"),
        ("30\n" + lines("{t} {n}"), " (first of 2 columns, without the header '30')"),
        (lines("{t},{n}"), " (first of 2 columns)"),
        (lines("{t};{n}"), " (first of 2 columns)"),
        (lines('"{t}",{n}'), " (first of 2 columns)"),
        (lines('"{t}"\t{n}'), " (first of 2 columns)"),
        (lines('"{t}" {n}'), " (first of 2 columns)"),
        (
            '"word","count"\n' + lines('"{t}",{n}'),
            ' (first of 2 columns, without the header \'"word","count"\')',
        ),
        (
            ",word,count\n" + lines("{n},{t},5", numbers=RISING),
            " (second of 3 columns, without the header ',word,count')",
        ),
        (lines('"{t}"'), " (in quotes)"),
        (
            '"x"\n' + lines('"{n}" "{t}"', numbers=RISING),
            " (second of 2 columns, without the header '\"x\"')",
        ),
        (lines("{n}\t{t}", numbers=RISING), " (second of 2 columns)"),
        (lines("{n},{t}", numbers=range(1, 31)), " (second of 2 columns)"),
        (lines("{n} {t}", numbers=RISING), " (second of 2 columns)"),
        (lines("{n}\t{t}"), " (second of 2 columns)"),
        (lines("{n:>7} {t}"), " (second of 2 columns)"),
        (lines("{n:>7} {t}", numbers=UNSORTED), " (second of 2 columns)"),
        (lines("{t} 0.1 -0.2 3e-2"), " (tokens of text vectors of dim 3)"),
        ("30 3\n" + lines("{t} 0.1 -0.2 3e-2"), " (tokens of text vectors of dim 3)"),
        (json.dumps({t: i for i, t in enumerate(TOKENS)}), " (JSON object of ids)"),
        (json.dumps({str(i): t for i, t in enumerate(TOKENS)}), " (JSON object by id)"),
        (json.dumps(TOKENS, indent=1), " (JSON array)"),
        (json.dumps([[t, -1.5] for t in TOKENS]), " (JSON array)"),
        (json.dumps({"model": {"vocab": {t: i for i, t in enumerate(TOKENS)}}}), " (tokenizer)"),
        (json.dumps({"model": {"vocab": [[t, -1.0] for t in TOKENS]}}), " (tokenizer)"),
    ],
)
def test_kinds_of_lists(save, text, kind):
    words, report = read_list(save(text), 30)
    assert words == TOKENS
    assert report.words == "words.txt" + kind


@pytest.mark.parametrize(
    "words",
    [
        ["area 51", "windows 95", "the", "of", "channel", "New York", "x", "y", "z", "q", "r"],
        ["the", "of", "area 51", "New York", "x"],
        [f"Film {i} ({1950 + i})" for i in range(30)],
        [f"12:{i:02}" for i in range(60)],
        [f"user {i}" for i in range(30)],
        ["Boeing 737", "Boeing 747", "Boeing 757", "Airbus 320", "Airbus 340"],
        [
            "the",
            "",
            " ",
            "  ",
            "\t",
            "##ing",
            "Ġthe",
            "Ċ",
            "\u00a0",
            "a,b",
            ",",
            '"',
            '""',
            "10,000",
            "3 musketeers",
        ],
        ["[PAD]", "[unused0]", "[UNK]"],
        ["{", "}", "[", "]"],
        ["1", "2", "3"],
        ["Paris, France", "London, England"],
        ["<s>", "<html>", "</s>"],
        ["#hash", "a"],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_lists_are_read_as_they_are(save, words, end):
    found, report = read_list(save("".join(word + end for word in words)), len(words))
    assert found == words
    assert report.words == "words.txt"


@pytest.mark.parametrize(
    "text, message",
    [
        (lines("{n}\t{t}", numbers=UNSORTED), "line 2: .*neither a row number nor a sorted count"),
        (lines("{n} {t}", numbers=UNSORTED), "line 2: .*neither a row number nor a sorted count"),
        (lines("{t}\t{n}", numbers=[*range(5, 30), *range(5)]), "row numbers in another order"),
        (lines("{t}\t{n}", numbers=[*range(29), 30]), "line 30: .*row number 30, expected 29"),
        (lines("{t}\t{n}").replace("\t876", ""), "line 25: 'tok24' has 1 column"),
        (lines("{t}").replace("tok24", "tok24\t876"), "line 25: .*columns separated by tabs, most lines"),
        (lines("{t} {n}").replace(" 876", ""), "line 25: 'tok24' has no number"),
        (lines("{t},{n}").replace(",876", ""), "line 25: 'tok24' has no number"),
        (lines("{n} {t}").replace("876 ", ""), "line 25: 'tok24' has no number"),
        (lines("{t}: {n}"), "a number after the word in most lines, such as 'tok29: 871'"),
        (lines("{t}|{n}"), "a number after the word"),
        (lines("{t} ({n})"), "a number after the word"),
        (lines("{t} 1,{n}"), "a number after the word"),
        (lines("{n}. {t}", numbers=RISING), "a number before the word"),
        (lines("'{t}',"), "single quotes"),
        (lines("- {t}"), "a list mark"),
        (lines("{t},"), "a comma after the word"),
        (lines("{t} NN"), "one of 1 words at the end"),
        (lines("{n} 5 {t}"), "two numbers before the word"),
        (lines('"{t}\\u0041"'), "JSON strings"),
        (lines("{n}\t5"), "numbers in its first columns"),
        (lines("0.{n}"), "a number in each line"),
        (json.dumps(dict.fromkeys(TOKENS, 900)), "has 900 for 'tok0'"),
        (json.dumps(dict.fromkeys(TOKENS, 5)), "id 5 twice, for 'tok0' and 'tok1'"),
        ('{"a": 0, "a": 1}', "'a' occurs twice"),
        (json.dumps({"tokenizer_class": "Bert", "do_lower_case": True}), "tokenizer_class"),
        (json.dumps([{"token": "a"}] * 30), "item 0: .*expected a string"),
        ('{"a": 0,\n', "cannot be parsed"),
        ('["a",' + "[" * 100_000, "cannot be parsed"),
        ('["' + "[" * 10, "cannot be parsed"),
        ("#version: 0.2\nĠ t\n" + "h e\n" * 28, "BPE merges"),
        ("<!DOCTYPE html>\n" * 30, "an HTML or XML page"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"\x80\x04\x95" + bytes(100), "a pickle"),
        (b"SQLite format 3\0" + bytes(100), "an SQLite database"),
        (bytes(range(256)) * 10, "a binary file"),
        (lines("0.1\t0.2\t0.3"), "numbers in its first columns"),
        (lines("0.1 0.2 0.3"), "vectors without tokens"),
        (lines("{t}").replace("\n", "\r"), "ends lines with CR only"),
        (lines("{t}\n"), r"Number of words \(59\) does not match number of vectors \(30\)"),
    ],
)
def test_other_files_are_rejected(save, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_list(save(text), 30)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("text", ["area 51\nroute 66\nformula 1\n", "area 51\n", "a b 3\nc d 2\ne f 1\n"])
def test_numbers_that_may_be_part_of_the_word_are_rejected(save, text):
    with pytest.raises(InputError, match="a count or a part of the word"):
        read_list(save(text), text.count("\n"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1251"])
def test_encodings(save, encoding):
    path = save("мир\t9\nдом\t8\n".encode(encoding))
    options = {} if encoding != "cp1251" else {"encoding": encoding}
    assert read_list(path, 2, **options)[0] == ["мир", "дом"]


@pytest.mark.parametrize("text", ["a\nb\nc\r\n", "a\r\nb\nc", "a\nb \nc\n", "a\nb\nc\n"])
def test_mixed_line_ends(save, text):
    assert read_list(save(text), 3)[0] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text, words", [('";"\n', [";"]), ("\n\n", ["", ""]), ("a", ["a"]), ("a\tb\n\n", ["a"])]
)
def test_short_lists(save, text, words):
    assert read_list(save(text), len(words))[0] == words


def test_empty_lines_after_the_last_row_are_dropped(save):
    words, report = read_list(save("a\n\nb\n\n\n"), 3)
    assert words == ["a", "", "b"]
    assert report.empty_lines == 2


def test_ids_without_a_token_leave_rows_without_a_word(save):
    words, report = read_list(save(json.dumps({"a": 0, "c": 2})), 4)
    assert words == ["a", "", "c", ""]
    assert report.words == "words.txt (JSON object of ids, 2 rows without a word)"


def test_added_tokens_of_a_tokenizer(save):
    added = [{"id": 0, "content": "a"}, {"id": 2, "content": "<pad>"}]
    text = json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added})
    assert read_list(save(text), 3)[0] == ["a", "b", "<pad>"]


@pytest.mark.parametrize("tail", ["x", "x 5", "x\ty\tz"])
def test_a_deviation_after_the_sample_is_an_error(save, monkeypatch, tail):
    monkeypatch.setattr(module, "_SAMPLE_LINES", 10)
    with pytest.raises(InputError, match="line 31"):
        read_list(save(lines("{t}\t{n}") + tail), 31)


def test_tokens_with_spaces_and_tabs_before_a_score(save):
    text = "<unk>\t0\n\t\t-1\nNew York\t-2.5\n▁\t-3\n"
    assert read_list(save(text), 4)[0] == ["<unk>", "\t", "New York", "▁"]


@pytest.mark.parametrize(
    "text, words",
    [
        ('""""\n","\nthe\n', ['"', ",", "the"]),
        ('the,9\n""""\n",",8\n'.replace('""""\n', '"""",8\n'), ["the", '"', ","]),
        ('"a\\"b"\n"c"\n', ['a"b', "c"]),
        ('"a""b"\n"c"\n', ['a"b', "c"]),
        (",,9\na,8\n10,000,7\n", [",", "a", "10,000"]),
        ('",9\na,8\n', ['"', "a"]),
    ],
)
def test_quotes_and_commas(save, text, words):
    assert read_list(save(text), len(words))[0] == words


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


def test_spaces_after_words_are_counted(save):
    words, report = read_list(save("a \nb\t \r\n c\n \n"), 4)
    assert words == ["a", "b", " c", " "]
    assert report.stripped_words == 2
    assert "words followed by spaces, which were removed: 2" in report.notes()


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
