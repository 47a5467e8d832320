import gzip
import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry import kernels
from smallfry.errors import BadLineError, InputError, NonFiniteError
from smallfry.kernels.numpy import text as numpy_text
from smallfry.kernels.numpy import tokens as numpy_tokens
from smallfry.readers import open_vectors
from smallfry.readers.formats import text as text_reader
from tests.helpers.readers import read

words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\r\0,;:|="), min_size=1, max_size=8
).filter(lambda word: not word.startswith("\ufeff"))
tables = st.integers(1, 5).flatmap(
    lambda dim: st.dictionaries(
        words.map("w{}".format),
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=dim, max_size=dim),
        min_size=2,
        max_size=8,
    )
)


def glove(table, newline="\n"):
    lines = [f"{token} {' '.join(map(repr, values))}{newline}" for token, values in table.items()]
    return "".join(lines).encode()


@pytest.fixture(params=["native", "numpy"])
def small_blocks(request, monkeypatch):
    """Read 64 bytes at a time, so that every case crosses blocks, with native and NumPy kernels."""
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 64)
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "parse_lines", numpy_text.parse_lines)
        monkeypatch.setattr(kernels, "invalid_utf8", numpy_text.invalid_utf8)
        monkeypatch.setattr(kernels, "TokenSet", numpy_tokens.TokenSet)


@given(tables, st.sampled_from(["\n", "\r\n"]))
def test_glove_text_round_trip(table, newline):
    tokens, matrix, report = read(glove(table, newline))
    assert tokens == list(table)
    np.testing.assert_array_equal(matrix, np.array(list(table.values()), np.float32))
    assert report.crlf_lines == (len(table) if newline == "\r\n" else 0)


@given(tables)
def test_word2vec_text_round_trip(table):
    dim = len(next(iter(table.values())))
    tokens, matrix, report = read(f"{len(table)} {dim}\n".encode() + glove(table))
    assert tokens == list(table)
    np.testing.assert_array_equal(matrix, np.array(list(table.values()), np.float32))
    assert report.declared_rows == len(table)
    assert report.notes() == []


def test_rows_keep_their_order_across_blocks(small_blocks):
    lines = b"".join(b"token-%d %d.5 %d\n" % (i, i, -i) for i in range(500))
    tokens, matrix, _ = read(lines)
    assert tokens == [f"token-{i}" for i in range(500)]
    np.testing.assert_array_equal(matrix, [[i + 0.5, -i] for i in range(500)])


CASES = {
    "token with spaces": (
        b"the 0.1 3\n. . . 1 3\nat name@domain.com 1 3\n",
        ["the", ". . .", "at name@domain.com"],
        {"spaced_tokens": 2},
    ),
    "token with Unicode spaces": (
        "a\xa0b 1 2\n\u3000 1 2\n\u2028\x85 1 2\nc 1 2\n".encode(),
        ["a\xa0b", "\u3000", "\u2028\x85", "c"],
        {"spaced_tokens": 0},
    ),
    "number as token": (b"2010 0.1 0.2\n3.14 0.1 0.2\n-1 0.1 0.2\n", ["2010", "3.14", "-1"], {}),
    "NUL": (b"a 1 2\na\0 1 2\n\0 1 2\n", ["a", "a\0", "\0"], {}),
    "special tokens": (b"<unk> 1 2\n</s> 3 4\n", ["<unk>", "</s>"], {}),
    "CRLF": (b"2 2\r\na 1 2\r\nb 3 4\r\n", ["a", "b"], {"crlf_lines": 3}),
    "missing newline": (b"a 1 2\nb 3 4", ["a", "b"], {"missing_newline": True}),
    "trailing separators": (b"2 2\na 1 2 \nb 3 4 \t\n", ["a", "b"], {}),
    "tabs": (b"a\t1\t2\nb\t3\t4\n", ["a", "b"], {}),
    "byte order mark": (b"\xef\xbb\xbfa 1 2\nb 3 4\n", ["a", "b"], {"byte_order_mark": True}),
    "byte order mark, header": (b"\xef\xbb\xbf2 2\na 1 2\nb 3 4\n", ["a", "b"], {"byte_order_mark": True}),
    "empty lines": (b"\na 1 2\n\n \t\r\nb 3 4\n\n", ["a", "b"], {"empty_lines": 4}),
    "invalid UTF-8": (
        b"a 1 2\ncaf\xe9 3 4\n\xff\xfe 5 6\n",
        ["a", "caf\ufffd", "\ufffd\ufffd"],
        {"invalid_utf8": 2},
    ),
    "equal after replacement": (b"caf\xe9 3 4\ncaf\xe8 5 6\n", ["caf\ufffd"], {"duplicates": 1}),
}


@pytest.mark.parametrize(("data", "tokens", "reported"), CASES.values(), ids=CASES)
def test_tokens_and_values_are_read(small_blocks, data, tokens, reported):
    found, matrix, report = read(data, encoding="utf-8")
    assert found == tokens
    assert matrix.shape == (len(tokens), 2)
    if tokens == ["a", "b"]:
        assert matrix.tolist() == [[1, 2], [3, 4]]
    assert {name: getattr(report, name) for name in reported} == reported


def test_first_of_duplicate_tokens_wins(small_blocks):
    tokens, matrix, report = read(b"a 1 2\nb 3 4\na 5 6\n" + b"".join(b"a %d 8\n" % i for i in range(40)))
    assert tokens == ["a", "b"]
    assert matrix.tolist() == [[1, 2], [3, 4]]
    assert report.duplicates == 41
    assert report.notes() == ["duplicate tokens, of which the first was kept: 41"]


def test_strict_rejects_invalid_utf8_with_line_number(small_blocks):
    with pytest.raises(BadLineError, match=r"line 3: token b'caf\\xe9' is not valid UTF-8"):
        read(b"2 2\na 1 2\ncaf\xe9 3 4\n", strict=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"b 3", "line 3: 1 values, expected 2"),
        (b"b", "line 3: 0 values, expected 2"),
        (b"b 0.5 3 4", "line 3: 3 values, expected 2"),
        (b"b 3 4x", "line 3: value 2 is '4x', expected a number"),
        (b"b c 1,5 4", "line 3: value 1 is '1,5', expected a number"),
    ],
)
def test_malformed_line_is_rejected_with_line_number(small_blocks, line, message):
    with pytest.raises(BadLineError, match=message):
        read(b"a 1 2\n\n" + line + b"\nc 1 2\nd 1 2\n")


def test_skip_bad_lines_skips_and_counts(small_blocks):
    data = b"a 1 2\nb 3\nc x 4\nd 0.5 5 6\ne 7 8\nf nan 9\n"
    tokens, matrix, report = read(data, skip_bad_lines=True)
    assert tokens == ["a", "e"]
    assert matrix.tolist() == [[1, 2], [7, 8]]
    assert (report.bad_lines, report.non_finite) == (4, 1)
    assert report.notes() == ["malformed lines, skipped: 3", "vectors with NaN or infinity, skipped: 1"]


@pytest.mark.parametrize(("value", "shown"), [(b"nan", "nan"), (b"-inf", "-inf"), (b"1e39", "inf")])
def test_non_finite_value_is_rejected_with_line_and_column(small_blocks, value, shown):
    with pytest.raises(NonFiniteError, match=f"line 4: value 2 is {shown}"):
        read(b"3 2\na 1 2\n\nb 3 " + value + b"\nc 1 2\n")


def test_more_rows_than_declared_are_rejected(small_blocks):
    with pytest.raises(BadLineError, match="line 4: another row, though the header declares 2"):
        read(b"2 2\na 1 2\nb 3 4\nc 5 6\n")


def test_fewer_rows_than_declared_are_rejected(small_blocks):
    with pytest.raises(BadLineError, match="ends after 2 of the 3 rows"):
        read(b"3 2\na 1 2\nb 3 4\n")


@pytest.mark.parametrize("declared", [1, 3])
def test_skip_bad_lines_accepts_any_number_of_rows(small_blocks, declared):
    tokens, _, report = read(b"%d 2\na 1 2\nb 3 4\n" % declared, skip_bad_lines=True)
    assert tokens == ["a", "b"]
    assert report.notes() == [f"rows declared: {declared}, found: 2"]


def test_header_without_rows_is_rejected():
    with pytest.raises(BadLineError, match="ends after 0 of the 400,000 rows"):
        read(b"400000 300\n")


def test_header_that_declares_no_rows():
    tokens, matrix, _ = read(b"0 300\n")
    assert tokens == [] and matrix.shape == (0, 300)


def test_header_that_declares_dim_0_is_rejected():
    with pytest.raises(InputError, match="vectors of 0 values"):
        read(b"2 0\na\nb\n")


def test_two_integers_are_a_vector_if_other_lines_have_one_value():
    tokens, matrix, _ = read(b"400000 300\nthe 0.5\nof 0.25\n")
    assert tokens == ["400000", "the", "of"]
    assert matrix.tolist() == [[300], [0.5], [0.25]]


def test_two_integers_are_a_header_if_ambiguous():
    assert read(b"2 1\nthe 0.5\nof 0.25\n")[0] == ["the", "of"]


def test_explicit_format_decides_what_two_integers_are():
    assert read(b"2 1\nthe 0.5\nof 0.25\n", format="glove")[0] == ["2", "the", "of"]
    with pytest.raises(BadLineError, match="line 2: 1 values, expected 300"):
        read(b"2 300\nthe 0.5\nof 0.25\n", format="word2vec")
    with pytest.raises(InputError, match="does not begin with a line 'rows dim'"):
        read(b"the 0.5\n", format="word2vec")


def test_bad_first_line_does_not_set_the_dim():
    with pytest.raises(BadLineError, match="line 1: 1 values, expected 2"):
        read(b"a 1\nb 1 2\nc 1 2\n")


def test_header_sets_the_dim():
    with pytest.raises(BadLineError, match="line 2: 2 values, expected 3"):
        read(b"2 3\na 1 2\nb 1 2\n")


def test_single_line():
    tokens, matrix, _ = read(b"New York 1.5 2.5")
    assert tokens == ["New York"]
    assert matrix.tolist() == [[1.5, 2.5]]


def test_overlong_line_is_rejected(small_blocks, monkeypatch):
    monkeypatch.setattr(text_reader, "MAX_LINE", 1000)
    with pytest.raises(BadLineError, match="line 3: longer than 1,000 bytes"):
        read(b"a 1 2\nb 1 2\n" + b"c" * 5000 + b" 1 2\n")


def test_limit_takes_the_first_vectors(small_blocks):
    lines = b"".join(b"token-%d %d 1\n" % (i // 2, i) for i in range(200))
    tokens, matrix, report = read(lines, limit=30)
    assert tokens == [f"token-{i}" for i in range(30)]
    assert matrix[:, 0].tolist() == [2 * i for i in range(30)]
    assert report.rows == 30


def test_memory_does_not_grow_with_the_file(monkeypatch):
    monkeypatch.setattr(text_reader, "BLOCK_BYTES", 1 << 15)
    line = b"0.12345 " * 300

    class Endless(io.RawIOBase):
        def __init__(self, size):
            self.lines = (b"token-%d %s\n" % (i, line) for i in range(size // len(line)))
            self.rest = b""

        def readable(self):
            return True

        def read(self, size=-1):
            while len(self.rest) < size and (more := next(self.lines, b"")):
                self.rest += more
            data, self.rest = self.rest[:size], self.rest[size:]
            return data

    def peak(size):
        tracemalloc.start()
        for _ in open_vectors(Endless(size)).chunks():
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(4_000_000), peak(12_000_000)
    assert many < few + 1_500_000  # of 8,000,000 bytes more; a buffer is held while it is hashed


def test_real_glove_lines(real_data):
    path = real_data / "embeddings" / "glove.6B.50d.head-1000.txt"
    tokens, matrix, report = read(path)
    assert tokens[:3] == ["the", ",", "."] and matrix.shape == (1000, 50)
    expected = [line.split(" ")[1:] for line in path.read_text("utf-8").splitlines()]
    np.testing.assert_array_equal(matrix, np.array(expected, np.float64).astype(np.float32))
    assert report.notes() == []


def test_real_gzipped_text(real_data):
    path = real_data / "embeddings" / "heavy-tails-10000.40d.txt.gz"
    tokens, matrix, report = read(path)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.split() for line in lines]
    assert tokens == [row[0] for row in rows]
    np.testing.assert_array_equal(matrix, np.array([row[1:] for row in rows], np.float64).astype(np.float32))
    assert report.compression == "gzip"
