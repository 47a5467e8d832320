import io
import sys

import pytest

from smallfry.cli.tokens import UnknownTokens, row_numbers, token_blocks
from smallfry.errors import InputError


@pytest.fixture
def stdin(monkeypatch):
    def replace(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return replace


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (b"", []),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\n\na", ["", "", "a"]),
        (b" a\t\n\x0b\x0c\rb\n", [" a\t", "\x0b\x0c\rb"]),
        ("\u2028\x85\n\xa0\n".encode(), ["\u2028\x85", "\xa0"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"caf\xe9\n", ["caf\udce9"]),
        (b"-- --\n--json\n", ["-- --", "--json"]),
    ],
)
def test_only_a_newline_ends_a_token(stdin, data, tokens):
    stdin(data)
    assert [token for block in token_blocks([], 2) for token in block] == tokens


def test_blocks_hold_at_most_their_size(stdin):
    stdin(b"a\n" * 100_000)
    sizes = [len(block) for block in token_blocks([], 1000)]
    assert max(sizes) == 1000 and sum(sizes) == 100_000


def test_given_tokens_are_used_instead_of_standard_input(stdin):
    stdin(b"x\n")
    assert list(token_blocks(["a", "b", "c"], 2)) == [["a", "b"], ["c"]]


def test_line_without_an_end_is_rejected(stdin):
    stdin(b"a" * (1 << 25))
    with pytest.raises(InputError, match="longer than 16,777,216 bytes"):
        list(token_blocks([], 10))


def test_closed_standard_input_is_rejected(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        list(token_blocks([], 10))


@pytest.mark.parametrize("text", ["-1", "x", "", "3", "9" * 30, "²"])
def test_invalid_row_number_is_rejected(text):
    with pytest.raises(InputError, match="row"):
        row_numbers(["0", text], 3)


def test_unknown_tokens_are_counted(capsys):
    unknown = UnknownTokens()
    for start in range(0, 12, 4):
        unknown.add([f"t{i}" for i in range(start, start + 4)], [i == 1 for i in range(start, start + 4)])
    assert unknown.exit_code() == 1
    expected = "smallfry: not in the vocabulary: 't0', 't2', 't3', 't4', 't5' and 6 more\n"
    assert capsys.readouterr().err == expected
    assert UnknownTokens().exit_code() == 0
