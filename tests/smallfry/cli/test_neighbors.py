import io
import json
import sys

import numpy as np
import pytest

import smallfry
from smallfry import cli

TOKENS = ["king", "queen", "-lrb-", "\t", "zero"]


@pytest.fixture
def path(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((5, 8), np.float32)
    matrix[4] = 0
    smallfry.save(tmp_path / "t.sfq", smallfry.quantize(matrix, 8), TOKENS)
    return str(tmp_path / "t.sfq")


def run(capsys, *arguments):
    code = cli.main(["neighbors", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_neighbors_are_those_of_the_store(capsys, path):
    code, out, err = run(capsys, path, "king", "-lrb-", "-k", "2")
    assert (code, err) == (0, "")
    store = smallfry.open(path)
    expected = [
        f"{token}\t{each.token!r}\t{each.score:.6f}".replace("'", "")
        for token in ("king", "-lrb-")
        for each in store.neighbors(token, 2)
    ]
    assert out.splitlines() == expected


def test_each_token_is_one_json_object_a_line(capsys, path):
    out = run(capsys, path, "queen", "king", "--json")[1]
    results = [json.loads(line) for line in out.splitlines()]
    assert [(result["query"], result["row"]) for result in results] == [("queen", 1), ("king", 0)]
    first = smallfry.open(path).neighbors("queen")[0]
    found = results[0]["neighbors"][0]
    assert (found["token"], found["row"], np.float32(found["score"])) == (first.token, first.row, first.score)


def test_rows_by_number_and_from_standard_input(capsys, monkeypatch, path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1\n0")))
    by_row = [json.loads(line) for line in run(capsys, path, "--ids", "--json")[1].splitlines()]
    by_token = [json.loads(line) for line in run(capsys, path, "queen", "king", "--json")[1].splitlines()]
    assert [each["neighbors"] for each in by_row] == [each["neighbors"] for each in by_token]


def test_unknown_token_is_named_and_exits_1(capsys, path):
    code, out, err = run(capsys, path, "x", "king", "-k1")
    assert (code, err) == (1, "smallfry: not in the vocabulary: 'x'\n")
    assert out.startswith("king\t") and out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zero"], "'zero': the query is all zeros"),
        (["--ids", "5"], "row 5 is out of range: the table has rows 0 to 4"),
        (["--ids", "king"], "'king' is not a row number"),
    ],
)
def test_invalid_query_fails_in_one_line(capsys, path, arguments, words):
    code, out, err = run(capsys, path, *arguments)
    assert (code, out) == (1, "")
    assert words in err and err.count("\n") == 1


def test_rows_without_tokens_have_numbers(capsys, tmp_path):
    matrix = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    smallfry.save(tmp_path / "t.sfq", smallfry.quantize(matrix, 32))
    code, out, _ = run(capsys, str(tmp_path / "t.sfq"), "--ids", "2")
    assert code == 0
    assert sorted(line.split("\t")[1] for line in out.splitlines()) == ["0", "1"]
