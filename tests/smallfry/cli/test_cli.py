import argparse
import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

import smallfry
from smallfry import cli
from smallfry.cli import lookup, serve, terminal
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import random_table

DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()


@pytest.fixture
def path(tmp_path):
    vocabulary = Vocabulary.build(["the", "of", "New York", "\x1b[31m"])
    table = random_table(4, 7, 2, "uniform", parts=("zero_rows",))
    sfq.write(tmp_path / "t.sfq", table, vocabulary, source={"name": "a\x1b[2Jb.txt"})
    return tmp_path / "t.sfq"


def run(capsys, *arguments):
    """Run the command in this process; return its exit code, output and errors."""
    try:
        code = cli.main([os.fspath(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def fail(capsys, *arguments, code=1):
    """Run a command that fails without output; return its one-line error."""
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("smallfry: error: " if code == 1 else "smallfry")
    assert err.count("\n") == 1
    return err


def test_info_shows_the_contents(capsys, path):
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    expected = (
        "rows +4",
        "dim +7",
        "bits a value +2",
        "codebook kind +uniform, clip 0.75",
        "whole file +4.44 kB",
    )
    for line in expected:
        assert re.search(f"(?m)^{line}", out), (line, out)


def test_info_json_equals_the_store(capsys, path):
    code, out, _ = run(capsys, "info", path, "--json")
    facts = json.loads(out)
    store = smallfry.open(path)
    assert code == 0
    assert facts["nbytes"] == store.nbytes
    assert facts["baseline_nbytes"] == store.baseline_nbytes
    assert facts["file_nbytes"] == path.stat().st_size
    assert facts["digest"] == store.digest
    assert (facts["rows"], facts["dim"], facts["nbit"]) == (4, 7, 2)
    assert facts["source"] == {"name": "a\x1b[2Jb.txt"}


def test_info_shows_how_much_is_in_memory(capsys, path):
    assert "in memory" not in run(capsys, "info", path)[1]
    assert re.search(r"(?m)^in memory +4.44 kB", run(capsys, "info", path, "--residency")[1])
    facts = json.loads(run(capsys, "info", path, "--residency", "--json")[1])
    assert facts["resident_nbytes"] == facts["file_nbytes"]


def test_control_characters_are_escaped(capsys, path):
    assert "\x1b" not in run(capsys, "info", path)[1]
    assert "\x1b" not in run(capsys, "lookup", path, "\x1b[31m", "\x1b[2J")[1]


def test_verify_of_a_valid_file(capsys, path):
    code, out, err = run(capsys, "verify", path)
    assert (code, err) == (0, "")
    assert "good: 6 digests agree, 4 tokens found at their rows" in out


def test_verify_of_a_changed_file_fails_in_one_line(capsys, path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert f"{path}: tensor 'tokens' has the SHA-256" in fail(capsys, "verify", path)


def test_lookup_values_round_trip(capsys, path):
    code, out, err = run(capsys, "lookup", path, "the", "New York")
    assert (code, err) == (0, "")
    lines = [line.rsplit(" ", 7) for line in out.splitlines()]
    assert [line[0] for line in lines] == ["the", "New York"]
    expected, _ = smallfry.open(path).lookup(["the", "New York"])
    np.testing.assert_array_equal(np.array([line[1:] for line in lines], np.float32), expected)


def test_lookup_json_values_round_trip(capsys, path):
    result = json.loads(run(capsys, "lookup", path, "of", "--json")[1])
    np.testing.assert_array_equal(np.array(result["vectors"], np.float32), smallfry.open(path).rows([1]))
    assert (result["dim"], result["nbit"], result["found"]) == (7, 2, [True])


def test_lookup_by_row_number(capsys, path):
    by_row, by_token = (run(capsys, "lookup", path, *args)[1] for args in (("--ids", "1"), ("of",)))
    assert by_row.split()[1:] == by_token.split()[1:]


def test_lookup_of_packed_codes(capsys, path):
    result = json.loads(run(capsys, "lookup", path, "of", "x", "--packed", "--json")[1])
    assert result["codes"] == [smallfry.open(path).codes([1]).tobytes().hex(), "0000"]
    assert "vectors" not in result


def test_lookup_names_unknown_tokens_and_exits_1(capsys, path):
    code, out, err = run(capsys, "lookup", path, "of", "x")
    assert (code, err) == (1, "smallfry: not in the vocabulary: 'x'\n")
    assert out.splitlines()[1] == "x" + " 0.0" * 7


def test_lookup_with_oov_error_rejects_unknown_tokens(capsys, path):
    assert "not in the vocabulary: 'x'" in fail(capsys, "lookup", path, "x", "--oov", "error")


@pytest.mark.parametrize("options", [[], ["--json"], ["--packed"], ["--packed", "--json"], ["--ids"]])
def test_lookup_of_standard_input_equals_that_of_arguments(capsys, monkeypatch, path, options):
    tokens = ["0", "3"] if options == ["--ids"] else ["the", "New York", "of"]
    expected = run(capsys, "lookup", path, *tokens, *options)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(tokens).encode())))
    assert run(capsys, "lookup", path, *options) == expected


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lookup_in_blocks_prints_one_result(capsys, monkeypatch, path, block):
    monkeypatch.setattr(lookup, "_BLOCK_VALUES", block)
    code, out, err = run(capsys, "lookup", path, "the", "x", "of", "--json")
    result = json.loads(out)
    assert (code, err) == (1, "smallfry: not in the vocabulary: 'x'\n")
    assert result["found"] == [True, False, True]
    expected, _ = smallfry.open(path).lookup(["the", "x", "of"])
    np.testing.assert_array_equal(np.array(result["vectors"], np.float32), expected)


def test_lookup_of_no_tokens(capsys, monkeypatch, path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert run(capsys, "lookup", path) == (0, "", "")
    assert json.loads(run(capsys, "lookup", path, "--json")[1]) == {
        "dim": 7,
        "nbit": 2,
        "vectors": [],
        "found": [],
    }


def test_lookup_on_a_terminal_says_what_it_reads(path):
    terminal_end, command_end = os.openpty()
    command = [sys.executable, "-m", "smallfry", "lookup", path]
    streams = {"stdin": command_end, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}  # of a missing native module
    with subprocess.Popen(command, env=quiet, **streams) as process:
        os.close(command_end)
        assert process.stderr.readline().endswith(b"one a line; end with Ctrl-D\n")
        os.write(terminal_end, b"the\n")
        assert process.stdout.readline().startswith(b"the ")  # before the input ends
        os.write(terminal_end, b"\x04")
    os.close(terminal_end)
    assert process.returncode == 0


@pytest.mark.parametrize("row", ["4", "x", "9" * 30])
def test_lookup_of_a_missing_row_fails_in_one_line(capsys, path, row):
    assert row in fail(capsys, "lookup", path, "--ids", row)


@pytest.mark.parametrize("verb", ["info", "verify", "lookup"])
def test_unreadable_file_fails_in_one_line(capsys, tmp_path, verb):
    (tmp_path / "text").write_text("the 0.1 0.2 0.3\n")
    (tmp_path / "empty").touch()
    for name in ("missing", ".", "text", "empty"):
        err = fail(capsys, verb, tmp_path / name, *(["the"] if verb == "lookup" else []))
        assert err.startswith(f"smallfry: error: {tmp_path / name}: ")


@pytest.mark.parametrize("arguments", [[], ["shrink"], ["info"], ["lookup"], ["compress", "a"]])
def test_invalid_command_line_exits_2_in_one_line(capsys, arguments):
    assert fail(capsys, *arguments, code=2).endswith("--help\n")


def test_compress_rejects_standard_output(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "expected a path" in fail(capsys, "compress", "missing.txt", "-o", "-", code=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("nbit", ["5", "0", "64", "two"])
def test_unsupported_bit_width_lists_the_supported_ones(capsys, nbit):
    err = fail(capsys, "compress", "missing.txt", "-o", "t.sfq", "--nbit", nbit, code=2)
    assert nbit in err
    if nbit != "two":
        assert "choose from 1, 2, 3, 4, 8, 16, 32" in err


@pytest.mark.parametrize(
    "option", [("--limit", "0"), ("--limit", "x"), ("--seed", "-1"), ("--format", "csv")]
)
def test_invalid_option_value_exits_2(capsys, option):
    fail(capsys, "compress", "missing.txt", "-o", "t.sfq", *option, code=2)


@pytest.mark.parametrize("name", ["missing.txt", ".", "t.sfq", "empty"])
def test_input_without_vectors_fails_in_one_line(capsys, path, name):
    (path.parent / "empty").touch()
    fail(capsys, "compress", path.parent / name, "-o", path.parent / "new.sfq")
    assert not (path.parent / "new.sfq").exists()


def test_compress_reports_the_table_and_the_input(capsys, tmp_path):
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\na 5 6\n")
    code, out, err = run(capsys, "compress", tmp_path / "v.txt", "-o", tmp_path / "v.sfq")
    assert (code, err) == (0, "")
    for line in (
        "made of +.*v.txt .glove.",
        " +duplicate tokens, of which the first was kept: 1",
        "rows +2",
        "dim +2",
        "bits a value +2",
        "relative error +0",
        "codes +2 bytes",
        "whole file +4.39 kB",
        r"float32 . dict +\d+ bytes, 0.1 times the whole file",
    ):
        assert re.search(f"(?m)^{line}", out), (line, out)


def test_compress_keeps_the_words_of_a_list_in_its_order(capsys, tmp_path):
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\nc 5 6\n")
    (tmp_path / "keep.txt").write_text("c\nx\na\n")
    options = ("--keep", tmp_path / "keep.txt", "--keep-order", "list", "-o", tmp_path / "v.sfq")
    _, out, _ = run(capsys, "compress", tmp_path / "v.txt", *options)
    assert "rows of other words, left out: 1" in out
    assert "words to keep, not found: 1 ('x')" in out
    assert list(smallfry.open(tmp_path / "v.sfq")) == ["c", "a"]


def test_progress_is_drawn_only_on_a_terminal(path):
    terminal_end, command_end = os.openpty()
    fcntl.ioctl(command_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "smallfry", "verify", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=command_end) as process:
        os.close(command_end)
        out = process.stdout.read()
    drawn = os.read(terminal_end, 10_000)
    os.close(terminal_end)
    assert process.returncode == 0
    assert out.count(b"\n") == 1
    assert b"digest" in drawn


def test_character_that_cannot_be_encoded_is_escaped(path):
    sfq.write(path, random_table(1, 1, 2, "uniform"), Vocabulary.build(["ß"]))
    done = subprocess.run(
        [sys.executable, "-m", "smallfry", "lookup", path, "ß"],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.startswith(b"\\xdf ")


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"smallfry {smallfry.__version__}\n")


def test_serve_names_the_missing_packages(capsys, monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'smallfry[server]'" in fail(capsys, "serve", "--embeddings", "t.sfq")


def test_serve_passes_all_arguments_to_the_server(monkeypatch):
    pytest.importorskip("fastapi", reason="the server is not installed")
    pytest.importorskip("uvicorn", reason="the server is not installed")
    import service.cli

    seen = []
    monkeypatch.setattr(service.cli, "main", lambda arguments: seen.append(arguments) or 7)
    assert cli.main(["serve", "--embeddings", "t.sfq", "--help"]) == 7
    assert seen == [["--embeddings", "t.sfq", "--help"]]


def test_broken_pipe_is_not_an_error(path):
    command = f"{sys.executable} -m smallfry lookup {path} {'of ' * 20000} | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_command_does_not_import_torch_or_the_server(path):
    program = (
        "import sys\n"
        "from smallfry.cli import main\n"
        f"code = main(['info', {os.fspath(path)!r}])\n"
        "print(code, [name for name in ('torch', 'fastapi', 'tqdm') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (30_012_345, "30.0 MB"),
        (7 * 10**12, "7000 GB"),
    ],
)
def test_sizes_have_three_digits(nbytes, text):
    assert terminal.size(nbytes) == text


def flags():
    verbs = next(action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    actions = [action for verb in verbs.choices.values() for action in verb._actions]
    options = {flag for action in actions for flag in action.option_strings}
    return sorted({*verbs.choices, *options} - {"-h", "--help"})


@pytest.mark.parametrize("flag", flags())
def test_every_verb_and_option_is_documented(flag):
    assert f"`{flag}" in DOCUMENTATION or f"## `smallfry {flag}" in DOCUMENTATION
