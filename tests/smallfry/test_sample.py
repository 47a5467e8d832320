import json
import os
import subprocess
import sys
from pydoc_data.topics import topics

import numpy as np
import pytest

from smallfry import cli, sample
from smallfry.compress import quantize
from smallfry.errors import InputError

TEXTS = list(topics.values())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "sample.txt"
    assert cli.main(["sample", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def vectors(path):
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    return {word: np.array(values, dtype=np.float32) for word, *values in lines}


def neighbors(vectors, word, count):
    words = list(vectors)
    matrix = np.stack(list(vectors.values()))
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    nearest = np.argsort(-(matrix @ matrix[words.index(word)]))
    return [words[row] for row in nearest if words[row] != word][:count]


def test_sample_has_thousands_of_words_in_128_dimensions(vectors):
    assert len(vectors) >= 3000
    assert {vector.shape for vector in vectors.values()} == {(128,)}


def test_sample_holds_the_words_that_the_documentation_looks_up(vectors):
    assert {"list", "string"} <= vectors.keys()
    assert "no-such-word" not in vectors


def test_sample_puts_the_most_frequent_word_first(vectors):
    assert next(iter(vectors)) == "the"


def test_sample_loses_at_2_bits_what_a_normal_distribution_loses(vectors):
    table = quantize(np.stack(list(vectors.values())), 2)
    assert table.frobenius_error == pytest.approx(0.343, abs=0.01)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("list", "tuple"), ("monday", "sunday"), ("integer", "integers"), ("thread", "threads")],
)
def test_related_words_are_neighbors(vectors, word, expected):
    assert expected in neighbors(vectors, word, 10)


def test_text_is_found_without_the_librarys_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(sample.sysconfig, "get_path", lambda _: str(tmp_path / "missing"))
    words, vectors = sample.embed(sample.standard_library_text(), dim=100)
    assert "list" in words
    assert vectors.shape == (len(words), 100)


def test_text_is_found_without_the_manuals_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert any("list" in text for text in sample.standard_library_text())


def test_unreadable_sources_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "binary.py").write_bytes(b"\0\xff")
    (tmp_path / "whole.py").write_text('"""A docstring."""')
    monkeypatch.setattr(sample.sysconfig, "get_path", lambda _: str(tmp_path))
    assert list(sample.standard_library_text())[-1] == "A docstring."


def test_vectors_do_not_depend_on_the_order_of_the_texts():
    words, vectors = sample.embed(TEXTS, dim=20)
    again, vectors_again = sample.embed(TEXTS[::-1], dim=20)
    assert again == words
    np.testing.assert_array_equal(vectors_again, vectors)


def test_vectors_do_not_depend_on_the_hash_seed():
    program = (
        "import json, sys; from smallfry.sample import embed\n"
        "words, vectors = embed(json.load(sys.stdin), dim=20); print(words, vectors.tolist())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(TEXTS),
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


def test_too_little_text_is_rejected_with_both_numbers():
    with pytest.raises(
        InputError, match="100 dimensions need at least 116 frequent words and the text has 1"
    ):
        sample.embed(["word", "word word", "word, again"], dim=100)


def test_dimensions_below_one_are_rejected(capsys, tmp_path):
    assert cli.main(["sample", "-o", str(tmp_path / "sample.txt"), "--dim", "0"]) == 1
    assert "dim is 0, expected 1 or more" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
