import io
import json
import sys

import numpy as np
import pytest

import smallfry
from smallfry import cli
from tests.helpers.text_models import TEXTS, write_text_model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(write_text_model(tmp_path_factory.mktemp("embed") / "t.sfq"))


@pytest.fixture
def stdin(monkeypatch):
    def replace(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return replace


def run(capsys, *arguments):
    code = cli.main(["embed", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def lists(out):
    return np.array([json.loads(line) for line in out.splitlines()], np.float32)


def vectors(path, texts):
    with smallfry.open(path) as store:
        return store.encoder().encode(texts)


def test_each_text_is_one_list_a_line(capsys, path):
    code, out, err = run(capsys, path, *TEXTS[:4], "")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(lists(out), vectors(path, [*TEXTS[:4], ""]))


def test_text_can_begin_with_a_dash(capsys, path):
    out = run(capsys, path, "-the", "--", "--cat")[1]
    np.testing.assert_array_equal(lists(out), vectors(path, ["-the", "--cat"]))


def test_lines_of_standard_input(capsys, stdin, path):
    stdin("the cat\n\n東京 cat\r\na mat".encode())
    out = run(capsys, path)[1]
    expected = vectors(path, ["the cat", "", "東京 cat", "a mat"])
    np.testing.assert_array_equal(lists(out), expected)


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_vectors_are_written_to_a_file(capsys, stdin, path, tmp_path, count):
    texts = [f"the cat sat {number}" for number in range(count)]
    stdin("".join(f"{text}\n" for text in texts).encode())
    code, out, err = run(capsys, path, "-o", str(tmp_path / "v.npy"))
    assert (code, err) == (0, "")
    assert f"{count:,} x 8 (npy)" in out
    written = np.load(tmp_path / "v.npy")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, vectors(path, texts))


def test_error_keeps_the_file_that_was_there(capsys, stdin, path, tmp_path):
    output = tmp_path / "v.npy"
    output.write_bytes(b"old")
    stdin(b"the cat\na \xff mat\n")
    code, out, err = run(capsys, path, "-o", str(output))
    assert (code, out) == (1, "")
    assert err == "smallfry: error: text 2 is not valid UTF-8. Please convert it.\n"
    assert output.read_bytes() == b"old" and list(tmp_path.iterdir()) == [output]


def test_output_is_an_npy_file_in_a_folder(capsys, path, tmp_path):
    assert "does not end in .npy" in run(capsys, path, "a", "-o", str(tmp_path / "v.txt"))[2]
    assert "No such folder" in run(capsys, path, "a", "-o", str(tmp_path / "x" / "v.npy"))[2]


def test_file_without_a_tokenizer_is_an_error(capsys, tmp_path):
    smallfry.save(tmp_path / "w.sfq", np.eye(2, dtype=np.float32), ["a", "b"], 32)
    code, out, err = run(capsys, str(tmp_path / "w.sfq"), "a")
    assert (code, out) == (1, "")
    assert "has no tokenizer, so it encodes no texts" in err


def test_info_shows_the_tokenizer(capsys, path):
    assert cli.main(["info", path]) == 0
    out = capsys.readouterr().out
    assert f"{smallfry.open(path).encoder().tokens} tokens, normalized" in out
    assert cli.main(["info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pooling"]["normalize"] is True


def test_export_says_that_the_tokenizer_is_left_out(capsys, path, tmp_path):
    assert cli.main(["export", path, "-o", str(tmp_path / "v.npy")]) == 0
    assert "without the tokenizer" in capsys.readouterr().out
    assert np.load(tmp_path / "v.npy").shape[1] == 8
