import os
import subprocess
import sys

import numpy as np
import pytest

import smallfry
from smallfry import cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matrix = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    smallfry.save("w.sfq", smallfry.quantize(matrix, 4), ["a", "b", "c"])
    smallfry.save(
        "r.sfq", smallfry.quantize(matrix, 4, codebook_kind="trellis", rotate=True), ["a", "New York", "c"]
    )
    return tmp_path


def run(capsys, *arguments):
    code = cli.main(["export", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_summary_names_the_files(capsys, folder):
    code, out, err = run(capsys, "w.sfq", "-o", "w.npy")
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["file", "w.npy"],
        ["vectors", "3 x 4 (npy)"],
        ["size", "176 bytes"],
        ["words", "w.txt"],
    ]


def test_rotation_and_spaces_are_reported(capsys, folder):
    _, out, _ = run(capsys, "r.sfq", "-o", "r.txt")
    assert "in the rotated basis, as lookups return them" in out
    assert "tokens with spaces, which few other programs read: 1" in out


def test_standard_output_has_the_bytes_of_the_file(capsys, folder):
    run(capsys, "r.sfq", "-o", "r.txt")
    done = subprocess.run(
        [sys.executable, "-m", "smallfry", "export", "r.sfq", "-o", "-"], capture_output=True, check=True
    )
    assert done.stdout == (folder / "r.txt").read_bytes()
    assert b"rotated basis" in done.stderr and done.stderr.count(b"\n") == 2


def test_other_end_of_a_pipe_may_close(folder):
    matrix = np.zeros((20_000, 8), np.float32)
    smallfry.save("z.sfq", smallfry.quantize(matrix, 1))
    command = f"{sys.executable} -m smallfry export z.sfq -o - | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["w.sfq", "-o", "w.csv"], "expected a name that ends in"),
        (["w.sfq", "-o", "-", "--format", "npy"], "a matrix needs a path"),
        (["w.sfq", "-o", "nowhere/w.txt"], "nowhere: No such folder to write to"),
        (["w.sfq", "-o", "w.sfq", "--format", "glove"], "is both input and output"),
        (["missing.sfq", "-o", "w.txt"], "missing.sfq: No such file"),
        (["w.sfq", "-o", "/dev/full", "--format", "glove"], "Not a regular file"),
    ],
)
def test_invalid_export_fails_in_one_line(capsys, folder, arguments, words):
    before = sorted(os.listdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert words in err and err.count("\n") == 1
    assert sorted(os.listdir()) == before
