"""Layouts of text files as common writers produce them."""

import numpy as np
import pytest

from smallfry.errors import BadLineError, InputError
from tests.helpers.readers import read

TOKENS = ["the", '"', ",", ";", "New York", "\\", "1,000", "3.14", "it's", 'say "x"', "#", "2010"]
MATRIX = np.arange(36, dtype=np.float32).reshape(12, 3) / 4 - 3.125


def values(row, delimiter=" "):
    return delimiter.join(map(str, row.tolist()))


def lines(template, delimiter=" ", tokens=TOKENS):
    return "".join(
        template.format(token, values(row, delimiter)) + "\n"
        for token, row in zip(tokens, MATRIX, strict=True)
    )


def doubled(token):
    return token.replace('"', '""')


def minimal(token, delimiter):
    """Quote a token as csv.writer does by default."""
    return f'"{doubled(token)}"' if delimiter in token or '"' in token else token


WRITERS = {
    "pandas, comma": ("word,0,1,2\n", lines("{},{}", ",", [minimal(t, ",") for t in TOKENS])),
    "pandas, semicolon": ("word;0;1;2\n", lines("{};{}", ";", [minimal(t, ";") for t in TOKENS])),
    "pandas, tab": ("word\t0\t1\t2\n", lines("{}\t{}", "\t", [minimal(t, "\t") for t in TOKENS])),
    "pandas, space": ("word 0 1 2\n", lines("{} {}", " ", [minimal(t, " ") for t in TOKENS])),
    "pandas, index without a name": (",0,1,2\n", lines("{},{}", ",", [minimal(t, ",") for t in TOKENS])),
    "pandas, named columns": ("word,x,y,z\n", lines("{},{}", ",", [minimal(t, ",") for t in TOKENS])),
    "csv without a header": ("", lines("{},{}", ",", [minimal(t, ",") for t in TOKENS])),
    "csv, all quoted": ('"word","0","1","2"\n', lines('"{}","{}"', '","', list(map(doubled, TOKENS)))),
    "R, write.csv": ('"","V1","V2","V3"\n', lines('"{}",{}', ",", list(map(doubled, TOKENS)))),
    "R, write.table": ('"V1" "V2" "V3"\n', lines('"{}" {}', tokens=[t.replace('"', '\\"') for t in TOKENS])),
    "quotes on every line": ("", lines('"{}" {}', tokens=list(map(doubled, TOKENS)))),
    "trailing commas": ("", lines("{},{},", ",", [minimal(t, ",") for t in TOKENS])),
    "spaces after commas": ("", lines("{}, {}", ", ", [minimal(t, ",") for t in TOKENS])),
    "tabs": ("", lines("{}\t{}", "\t")),
    "a tab, then spaces": ("", lines("{}\t{}")),
    "a comment first": ("# three values a row\n", lines("{} {}")),
}


@pytest.mark.parametrize(("header", "body"), WRITERS.values(), ids=WRITERS)
def test_files_of_common_writers_are_read(header, body):
    tokens, matrix, report = read((header + body).encode())
    assert tokens == TOKENS
    np.testing.assert_array_equal(matrix, MATRIX)
    assert report.column_names == bool(header)


def test_report_names_delimiter_column_names_and_quotes():
    _, _, report = read(b'"w";"0";"1"\n"a";0.5;1\n"b";2;3\n')
    assert report.notes() == [
        "quoted tokens, whose quotes were removed: 2",
        "fields separated by semicolons",
        "a line of column names, skipped",
    ]


@pytest.mark.parametrize("delimiter", " ,;\t")
@pytest.mark.parametrize("header", ["", "names", "12 3\n"])
def test_lines_of_values_have_no_tokens(delimiter, header):
    header = delimiter.join("xyz") + "\n" if header == "names" else header
    body = "".join(values(row, delimiter) + "\n" for row in MATRIX)
    tokens, matrix, report = read((header + body).encode())
    assert (tokens, report.format) == (None, "text-matrix")
    np.testing.assert_array_equal(matrix, MATRIX)


def test_fixed_width_columns_have_no_tokens(tmp_path):
    np.savetxt(tmp_path / "m.txt", MATRIX, fmt="%9.4f", header="a comment")
    tokens, matrix, _ = read(tmp_path / "m.txt")
    assert tokens is None
    np.testing.assert_array_equal(matrix, MATRIX)


def test_integer_tokens_before_fractions_are_tokens():
    assert read(lines("{} {}", tokens=range(12)).encode())[0] == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("options", "tokens"),
    [({"format": "glove"}, ["1", "4"]), ({"format": "text-matrix"}, None)],
)
def test_format_decides_what_integers_are(options, tokens):
    with pytest.raises(InputError, match="only integers"):
        read(b"1 2 3\n4 5 6\n")
    assert read(b"1 2 3\n4 5 6\n", **options)[0] == tokens


def test_header_decides_what_integers_are():
    assert read(b"2 2\n1 2 3\n4 5 6\n")[0] == ["1", "4"]
    assert read(b"2 3\n1 2 3\n4 5 6\n")[0] is None


def test_spaces_around_a_token_are_kept_between_tabs():
    assert read(b" the\t0.5\t1\nof \t2\t3\n \t4\t5\n")[0] == [" the", "of ", " "]


def test_blank_tokens_are_read():
    body = "".join(
        f"{t} {values(row)}\n" for t, row in zip(["a", "\n", " ", "", "\n\n", "b"], MATRIX[:6], strict=True)
    )
    tokens, matrix, _ = read(b"6 3\n" + body.encode())
    assert tokens == ["a", "\n", " ", "", "\n\n", "b"]
    np.testing.assert_array_equal(matrix, MATRIX[:6])


@pytest.mark.parametrize("block", range(2, 40, 3))
def test_newline_token_is_read_across_blocks(block, monkeypatch):
    monkeypatch.setattr("smallfry.readers.formats.text.BLOCK_BYTES", block)
    assert read(b"3 1\na 1.5\n\n 2.5\nb 3.5\n\n")[0] == ["a", "\n", "b"]


REJECTED = {
    "comma, then spaces": (lines("{},{}", tokens=["t"] * 12), "mixes delimiters"),
    "space, then commas": (lines("{} {}", ",", tokens=["t"] * 12), "mixes delimiters"),
    "tab, then commas": (lines("{}\t{}", ",", tokens=["t"] * 12), "mixes delimiters"),
    "colon, then spaces": (lines("{}:{}", tokens=["t"] * 12), "mixes delimiters"),
    "token with a colon": (lines("{}: {}", tokens=["t"] * 12), "mixes delimiters"),
    "token with a comma": (lines("{}, {}", tokens=["t"] * 12), "mixes delimiters"),
    "decimal commas": (lines("{} {}", tokens=TOKENS).replace(".", ","), "decimal commas"),
    "decimal commas, semicolons": (
        lines("{};{}", ";", tokens=["t"] * 12).replace(".", ","),
        "decimal commas",
    ),
    "row number": (
        "".join(f"{i} {line}\n" for i, line in enumerate(lines("{} {}").splitlines())),
        "a column of row numbers",
    ),
    "row number, tabs": (
        "".join(f"{i}\t{line}\n" for i, line in enumerate(lines("{}\t{}", "\t").splitlines(), 1)),
        "a column of row numbers",
    ),
    "two columns of text": (lines("en\t{}\t{}", "\t"), "several columns before the values"),
    "counts": (lines("{} 900 {}"), "counts"),
    "fewer values declared": ("12 2\n" + lines("{} {}"), "lines of 3 values, but its header declares 2"),
    "integers, fewer declared": ("2 2\na 1 2 3\nb 4 5 6\n", "lines of 3 values, but its header declares 2"),
}


@pytest.mark.parametrize(("text", "message"), REJECTED.values(), ids=REJECTED)
def test_layout_that_would_be_misread_is_rejected(text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(text.encode())
    assert len(str(caught.value)) <= 500


def test_malformed_line_without_a_token_is_rejected_even_if_others_are_skipped():
    with pytest.raises(BadLineError, match="line 2: 1 values, expected 2"):
        read(b"0.5 1.5\n2.5\n3.5 4.5\n", skip_bad_lines=True)


def test_few_lines_of_other_layouts_do_not_decide():
    body = lines("{} {}", tokens=[f"user:{i}" for i in range(12)])
    assert read(body.encode())[0] == [f"user:{i}" for i in range(12)]


def test_lines_of_values_take_their_tokens_from_a_word_list(tmp_path):
    (tmp_path / "words.txt").write_text("".join(f"w{i}\n" for i in range(12)))
    np.savetxt(tmp_path / "m.txt", MATRIX)
    tokens, matrix, _ = read(tmp_path / "m.txt", words=tmp_path / "words.txt")
    assert tokens == [f"w{i}" for i in range(12)]
    np.testing.assert_array_equal(matrix, MATRIX)


@pytest.mark.parametrize("count", [11, 13])
def test_word_list_of_another_length_is_rejected(tmp_path, count):
    (tmp_path / "words.txt").write_text("".join(f"w{i}\n" for i in range(count)))
    np.savetxt(tmp_path / "m.txt", MATRIX)
    with pytest.raises(InputError, match="does not match number of vectors"):
        read(tmp_path / "m.txt", words=tmp_path / "words.txt")


@pytest.mark.parametrize("last", ["b 3", "b 3.5 4", "b 3.5 4\n"])
def test_truncated_file_is_accepted_without_its_unfinished_line(last):
    data = f"3 2\na 1 2\n{last}".encode()
    with pytest.raises(BadLineError, match=r"line (3|4)"):
        read(data)
    tokens, _, report = read(data, allow_truncated=True)
    assert tokens == (["a", "b"] if last.endswith("\n") else ["a"])
    assert "rows declared: 3, found: 2" in report.notes()


def test_complete_last_line_without_a_newline_is_kept():
    assert read(b"2 2\na 1 2\nb 3 4", allow_truncated=True)[0] == ["a", "b"]


def test_lines_that_end_in_carriage_returns_are_rejected():
    with pytest.raises(InputError, match="ends lines with CR only"):
        read(b"a 1 2\rb 3 4\r")


@pytest.mark.parametrize(
    "text", [",,,\na,0.5,1\nb,2,3\n", "a,0.5 ,1 \n,,\nb,2,3\n", ",,\n0.5,1,2\n3,4.5,5\n"]
)
def test_lines_of_delimiters_are_empty(text):
    _, matrix, report = read(text.encode())
    assert (len(matrix), report.empty_lines) == (2, 1)
