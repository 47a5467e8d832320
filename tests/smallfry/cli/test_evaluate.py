import json
import os
import re
import resource

import numpy as np
import pytest

import smallfry
from smallfry import cli

WORDS = [f"w{i}" for i in range(300)]
X = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)


def test_nbits_are_compressed_in_memory(vectors, capsys):
    report = run(capsys, vectors, "--nbits", "1,4", "--json")
    assert [(f["nbit"], f["codebook_kind"]) for f in report["compressed"]] == [(1, "uniform"), (4, "uniform")]
    assert report["compressed"][0]["frobenius_error"] > report["compressed"][1]["frobenius_error"]


def test_codings_are_skipped_at_unsupported_widths(vectors, capsys):
    codings = "uniform,trellis,trellis+center+rotate+row-scale,best"
    report = run(capsys, vectors, "--nbits", "2,8", "--codings", codings, "--json")
    names = [f["name"] for f in report["compressed"]]
    assert names == ["2 uniform", "2 trellis", "2 trellis+center+rotate+row-scale", "2 best", "8 uniform"]
    errors = [f["frobenius_error"] for f in report["compressed"][:4]]
    assert errors == sorted(errors, reverse=True)


def test_file_is_measured_against_its_original(vectors, tmp_path, capsys):
    options = ["--codebook", "trellis", "--center", "--rotate"]
    assert cli.main(["compress", str(vectors), "-o", str(tmp_path / "v.sfq"), "--nbit", "4", *options]) == 0
    reported = float(re.search(r"relative error +(\S+)", capsys.readouterr().out)[1])
    report = run(capsys, vectors, tmp_path / "v.sfq", "--json")
    assert report["compressed"][0]["frobenius_error"] == pytest.approx(reported, rel=1e-3)
    assert report["compressed"][0]["name"] == "v"


def test_rows_of_a_file_are_matched_by_words(vectors, tmp_path, capsys):
    order = np.random.default_rng(1).permutation(300)
    np.save(tmp_path / "other.npy", X[order])
    (tmp_path / "other.txt").write_text("\n".join(WORDS[i] for i in order))
    cli.main(["compress", str(tmp_path / "other.npy"), "-o", str(tmp_path / "o.sfq"), "--nbit", "8"])
    capsys.readouterr()
    assert run(capsys, vectors, tmp_path / "o.sfq", "--json")["compressed"][0]["frobenius_error"] < 0.01


def test_unnamed_rows_are_matched_by_number(tmp_path, capsys):
    np.save(tmp_path / "m.npy", X)
    (tmp_path / "m.txt").write_bytes(b"\n".join([b"same", b"same", b"\xff", *map(str.encode, WORDS[3:])]))
    cli.main(["compress", str(tmp_path / "m.npy"), "-o", str(tmp_path / "m.sfq"), "--nbit", "8"])
    capsys.readouterr()
    report = run(capsys, tmp_path / "m.npy", tmp_path / "m.sfq", "--json")
    assert report["compressed"][0]["frobenius_error"] < 0.01


def test_file_that_lacks_words_is_rejected(vectors, tmp_path, capsys):
    np.save(tmp_path / "few.npy", X[:100])
    (tmp_path / "few.txt").write_text("\n".join(WORDS[:100]))
    cli.main(["compress", str(tmp_path / "few.npy"), "-o", str(tmp_path / "f.sfq")])
    assert cli.main(["evaluate", str(vectors), str(tmp_path / "f.sfq")]) == 1
    assert "lacks 200 of the 300 words" in capsys.readouterr().err
    assert cli.main(["evaluate", str(vectors), str(tmp_path / "f.sfq"), "--limit", "100"]) == 0


def test_word_tests_are_read_from_files_and_directories(vectors, questions, capsys):
    report = run(capsys, vectors, "--nbits", "8", *questions, "--json")
    assert [s["name"] for s in report["similarity"]] == ["pairs"]
    assert [(s["name"], s["found"]) for s in report["analogies"]] == [("family", 2)]
    assert len(report["compressed"][0]["analogies"]) == 1


def test_word_tests_need_words(tmp_path, questions, capsys):
    np.save(tmp_path / "bare.npy", X)
    assert cli.main(["evaluate", str(tmp_path / "bare.npy"), *questions]) == 1
    assert "has no words. Give them with --words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("points", "advice"), [("90", "Recommended: 1 uniform"), ("0.0001", "No table measured")]
)
def test_recommendation_is_the_last_line(vectors, capsys, points, advice):
    assert cli.main(["evaluate", str(vectors), "--nbits", "1,2", "--max-loss", points]) == 0
    assert advice in capsys.readouterr().out.splitlines()[-1]


def test_word_list_is_named_next_to_the_report(vectors, capsys):
    assert cli.main(["evaluate", str(vectors), "--nbits", "2"]) == 0
    assert capsys.readouterr().err == "smallfry: words: vectors.txt\n"


def test_recommendation_in_the_json(vectors, capsys):
    assert run(capsys, vectors, "--nbits", "1,2", "--max-loss", "90", "--json")["recommended"] == "1 uniform"
    assert run(capsys, vectors, "--nbits", "1,2", "--max-loss", "0", "--json")["recommended"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-loss", "1", "--measure", "analogies"], "Give files with --analogies"),
        (["--html", "/nonexistent/page.html"], "/nonexistent: No such folder"),
        (["--html", "."], ".: Is a directory"),
        (["--nbits", "8", "--codings", "trellis"], "trellis supports 1, 2, 3, 4 bits, not 8"),
        (["--nbits", "3"], "uniform supports 1, 2, 4, 8, 16, 32 bits, not 3"),
    ],
)
def test_invalid_options_fail_before_the_measurement(tmp_path, options, message, capsys):
    assert cli.main(["evaluate", str(tmp_path / "missing.npy"), *options]) == 1
    assert message in capsys.readouterr().err


def test_directory_without_test_files_is_rejected(vectors, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(["evaluate", str(vectors), "--similarity", str(tmp_path / "empty")]) == 1
    assert "has no test files" in capsys.readouterr().err


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize(
    "name", ["vectors.npy", "vectors.txt", "made.sfq", "family.txt", "similarity/pairs.txt"]
)
def test_page_cannot_replace_an_input(vectors, questions, tmp_path, capsys, name, link):
    smallfry.save(tmp_path / "made.sfq", X, WORDS, nbit=2).close()
    page, before = tmp_path / name, (tmp_path / name).read_bytes()
    if link is not None:
        page = tmp_path / "link.html"
        link(tmp_path / name, page)
    arguments = [str(vectors), str(tmp_path / "made.sfq"), *questions, "--html", str(page)]
    assert cli.main(["evaluate", *arguments]) == 1
    assert "is both input and output" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


def test_report_is_printed_and_the_old_page_kept_on_a_full_disk(tmp_path, capsys):
    np.save(tmp_path / "x.npy", X[:60])  # a temporary matrix of 2,880 bytes
    page = tmp_path / "page.html"
    page.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert cli.main(["evaluate", str(tmp_path / "x.npy"), "--html", str(page)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    printed = capsys.readouterr()
    assert "2 uniform" in printed.out
    assert "page.html: File too large; what was there is unchanged" in printed.err
    assert page.read_text() == "old"


@pytest.mark.parametrize("option", ["--similarity", "--analogies"])
def test_encoding_of_word_tests(tmp_path, capsys, option):
    words = ["café", "w1", "w2", "w3"]
    np.save(tmp_path / "x.npy", X[:4])
    (tmp_path / "x.txt").write_text("\n".join(words), "utf-8")
    text = "café w1 3\nw1 w2 5\n" if option == "--similarity" else "café w1 w2 w3\n"
    (tmp_path / "tests.txt").write_text(text, "latin-1")
    arguments = [str(tmp_path / "x.npy"), "--nbits", "8", option, str(tmp_path / "tests.txt")]
    assert cli.main(["evaluate", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "tests.txt, line 1: not valid UTF-8. Please name the encoding" in error
    assert cli.main(["evaluate", *arguments, "--test-encoding", "latin-1"]) == 0
    assert cli.main(["evaluate", *arguments, "--test-encoding", "klingon"]) == 1
    assert "encoding is 'klingon'" in capsys.readouterr().err


def test_page_is_self_contained_and_escaped(tmp_path, questions, capsys):
    np.save(tmp_path / "a<b>.npy", X)
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    words, html = str(tmp_path / "words.txt"), str(tmp_path / "page.html")
    options = ["--words", words, "--html", html, "--max-loss", "50"]
    assert cli.main(["evaluate", str(tmp_path / "a<b>.npy"), *questions, *options]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert page.count("<svg") == 4
    assert "a&lt;b&gt;.npy" in page
    assert "<b>" not in page
    assert "nan" not in page


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--nbits", "5"),
        ("--codings", "magic"),
        ("--codings", "trellis+left"),
        ("--codings", "uniform+rotate"),
        ("--nbits", ""),
        ("--max-loss", "nan"),
        ("--max-loss", "-1"),
        ("--max-loss", "two"),
    ],
)
def test_invalid_option_value_is_named(vectors, option, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", str(vectors), option, value])
    assert option in capsys.readouterr().err


@pytest.fixture
def vectors(tmp_path):
    np.save(tmp_path / "vectors.npy", X)
    (tmp_path / "vectors.txt").write_text("\n".join(WORDS))
    return tmp_path / "vectors.npy"


@pytest.fixture
def questions(tmp_path):
    folder = tmp_path / "similarity"
    folder.mkdir()
    (folder / "pairs.txt").write_text("\n".join(f"w{i} w{i + 1} {i % 7}" for i in range(40)))
    (folder / "notes.md").write_text("no pairs")
    (tmp_path / "family.txt").write_text("w1 w2 w3 w4\nw5 w6 w7 w8\n")
    return ["--similarity", str(folder), "--analogies", str(tmp_path / "family.txt")]


def run(capsys, *arguments):
    assert cli.main(["evaluate", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)
