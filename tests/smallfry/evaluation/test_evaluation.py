import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry.compress import quantize
from smallfry.errors import BadLineError, InputError
from smallfry.evaluation import (
    AnalogySet,
    ArrayVectors,
    Questions,
    Report,
    Score,
    SimilaritySet,
    TableVectors,
    evaluate,
    read_analogies,
    read_similarity,
    recommend,
)
from smallfry.evaluation.geometry import compare
from smallfry.evaluation.measure import lloyd_max_snr_db
from smallfry.evaluation.neighbors import knn_overlap
from smallfry.evaluation.words import analogies, find_forms, similarity, spearman


def matrices(rows=60, dim=8, noise=0.3, seed=0):
    random = np.random.default_rng(seed)
    X = random.standard_normal((rows, dim)).astype(np.float32) * np.linspace(0.2, 2, dim, dtype=np.float32)
    return X, (X + noise * random.standard_normal((rows, dim))).astype(np.float32)


def geometry(X, Y):
    return compare(ArrayVectors(X), ArrayVectors(Y))


def test_geometry_equals_its_definitions():
    X, Y = matrices()
    x, y = X.astype(np.float64), Y.astype(np.float64)
    left, left_compressed = (np.linalg.svd(m, full_matrices=False)[0] for m in (x, y))
    fitted = y @ np.linalg.lstsq(y, x, rcond=None)[0]
    measured = geometry(X, Y)
    assert measured.frobenius_error == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x))
    assert measured.eigenspace_overlap == pytest.approx(np.linalg.norm(left.T @ left_compressed) ** 2 / 8)
    assert measured.pip_loss == pytest.approx(np.linalg.norm(x @ x.T - y @ y.T) / np.linalg.norm(x @ x.T))
    assert measured.fit_error == pytest.approx(np.linalg.norm(x - fitted) / np.linalg.norm(x))


@pytest.mark.parametrize("dim", [8, 3])
def test_overlap_predicts_the_loss_of_linear_models(dim):
    """Of random labels in the span of X, a linear model of X̃ leaves d · (1 − overlap) unexplained."""
    X, Y = (m.astype(np.float64) for m in matrices())
    Y = Y @ np.linalg.svd(Y, full_matrices=False)[2][:dim].T
    labels = np.linalg.qr(X)[0]
    left_over = labels - Y @ np.linalg.lstsq(Y, labels, rcond=None)[0]
    back = (Y @ np.linalg.lstsq(Y, X, rcond=None)[0]).astype(np.float32)  # d columns of the same span
    assert np.square(left_over).sum() == pytest.approx(
        8 * (1 - geometry(X.astype(np.float32), back).eigenspace_overlap), rel=1e-4
    )


def test_overlap_of_rank_deficient_matrices():
    X, _ = matrices()
    flat = X.copy()
    flat[:, 3:] = 0
    assert geometry(flat, flat).eigenspace_overlap == pytest.approx(1)
    assert geometry(X, flat).eigenspace_overlap == pytest.approx(3 / 8)


def test_rotation_keeps_subspace_and_inner_products():
    X, _ = matrices()
    rotated = X @ np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0].astype(np.float32)
    measured = geometry(X, rotated)
    assert measured.eigenspace_overlap == pytest.approx(1)
    assert measured.pip_loss == pytest.approx(0, abs=1e-5)
    assert measured.frobenius_error > 0.5


def test_pip_loss_of_a_tiny_change_is_accurate():
    X, _ = matrices()
    Y = X + np.float32(2**-18) * np.sign(X)
    x, y = X.astype(np.float64), Y.astype(np.float64)
    expected = np.linalg.norm(x @ x.T - y @ y.T) / np.linalg.norm(x @ x.T)
    assert geometry(X, Y).pip_loss == pytest.approx(expected, rel=1e-6)


def test_identical_matrices_have_no_loss():
    X, _ = matrices()
    measured = geometry(X, X)
    assert (measured.frobenius_error, measured.pip_loss, measured.snr_db) == (0, 0, math.inf)
    assert knn_overlap(ArrayVectors(X), ArrayVectors(X)) == 1


def test_zero_matrix():
    zeros = np.zeros((4, 3), np.float32)
    assert geometry(zeros, zeros).frobenius_error == 0


def test_different_shapes_are_rejected():
    with pytest.raises(InputError, match=r"\[60, 8\] and the compressed \[59, 8\]"):
        geometry(matrices()[0], matrices(59)[0])


def test_blocks_do_not_change_the_result(monkeypatch):
    X, Y = matrices()
    whole = geometry(X, Y), knn_overlap(ArrayVectors(X), ArrayVectors(Y))
    monkeypatch.setattr("smallfry.evaluation.vectors.BLOCK_ROWS", 7)
    blocked = geometry(X, Y), knn_overlap(ArrayVectors(X), ArrayVectors(Y))
    assert blocked[0].eigenspace_overlap == pytest.approx(whole[0].eigenspace_overlap)
    assert blocked[1] == whole[1]


def test_neighbors_equal_a_full_sort():
    X, Y = matrices()
    nearest = []
    for m in (X, Y):
        u = m / np.linalg.norm(m, axis=1, keepdims=True)
        cosines = u @ u.T
        np.fill_diagonal(cosines, -2)
        nearest.append(np.argsort(-cosines, axis=1)[:, :5])
    expected = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*nearest, strict=True)])
    assert knn_overlap(ArrayVectors(X), ArrayVectors(Y), k=5) == pytest.approx(expected)


def test_single_row_has_overlap_1():
    X = np.ones((1, 3), np.float32)
    assert knn_overlap(ArrayVectors(X), ArrayVectors(X)) == 1


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_rank_correlation_equals_scipy(pairs):
    from scipy.stats import spearmanr  # slow: not when tests are collected

    a, b = np.array(pairs, np.float64).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


@pytest.mark.parametrize(
    "text",
    [
        "cat\tdog\t3.5\nking\tqueen\t7\n",
        "cat dog 3.5\n\nking queen 7\n",
        "w1,w2,mean score\ncat,dog,3.5\nking,queen,7",
    ],
)
def test_similarity_file_separators(tmp_path, text):
    (tmp_path / "set.txt").write_text(text)
    read = read_similarity(tmp_path / "set.txt")
    assert read == SimilaritySet("set", (("cat", "dog"), ("king", "queen")), (3.5, 7.0))


def test_score_is_the_first_number_after_the_words(tmp_path):
    (tmp_path / "simlex.txt").write_text("word1\tword2\tPOS\tSimLex999\tconc\nold\tnew\tA\t1.58\t2.72\n")
    assert read_similarity(tmp_path / "simlex.txt").scores == (1.58,)


def test_line_without_a_score_is_named(tmp_path):
    (tmp_path / "set.txt").write_text("cat dog 3.5\ncat dog\n")
    with pytest.raises(BadLineError, match="line 2: expected 'word word score'"):
        read_similarity(tmp_path / "set.txt")


def test_analogy_sets_are_named_by_section_or_file(tmp_path):
    text = ": family\nboy girl king queen\n: empty\n: plural\ncat cats dog dogs\n"
    (tmp_path / "google.txt").write_text(text)
    (tmp_path / "family.txt").write_text("boy girl king queen\n")
    family = AnalogySet("family", (("boy", "girl", "king", "queen"),))
    plural = AnalogySet("plural", (("cat", "cats", "dog", "dogs"),))
    assert read_analogies(tmp_path / "google.txt") == [family, plural]
    assert read_analogies(tmp_path / "family.txt") == [family]


def test_analogy_of_three_words_is_named(tmp_path):
    (tmp_path / "bad.txt").write_text("boy girl king\n")
    with pytest.raises(BadLineError, match="line 1: expected four words"):
        read_analogies(tmp_path / "bad.txt")


def test_words_are_found_as_written_lower_or_capitalized():
    ids = find_forms(["cat", "Cat", "CAT", "paris", "dog"], finder(["cat", "Paris"]))
    assert ids.tolist() == [0, 0, 0, 1, -1]


def test_similarity_of_the_pairs_found():
    X = np.array([[1, 0], [1, 0.1], [0, 1], [1, 1]], np.float32)
    pairs = (("a", "b"), ("a", "c"), ("a", "d"), ("a", "unknown"))
    tested = SimilaritySet("set", pairs, (3.0, 1.0, 2.0, 9.0))
    assert similarity(ArrayVectors(X), [tested], finder("abcd")) == [Score("set", pytest.approx(1), 3, 4)]


def test_analogies_exclude_the_words_of_the_question():
    words = ["man", "woman", "king", "queen", "apple"]
    X = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], np.float32)
    sets = [
        AnalogySet("family", (("man", "woman", "king", "queen"), ("man", "king", "woman", "apple"))),
        AnalogySet("unknown", (("man", "woman", "king", "emperor"),)),
    ]
    scores = analogies(ArrayVectors(X), sets, finder(words))
    assert scores[0] == Score("family", 0.5, 2, 2)
    assert math.isnan(scores[1].value)
    assert (scores[1].found, scores[1].total) == (0, 1)


def test_restricted_analogies_ignore_later_rows():
    words = ["man", "woman", "king", "queen"]
    X = np.eye(4, dtype=np.float32)
    sets = [AnalogySet("family", (("man", "woman", "king", "queen"),))]
    assert analogies(ArrayVectors(X), sets, finder(words), restrict=3)[0].found == 0


def test_lloyd_max_ratios_of_gaussian_values():
    X = ArrayVectors(np.random.default_rng(0).standard_normal((4000, 100)))
    assert [round(lloyd_max_snr_db(X, nbit), 1) for nbit in (1, 2, 4)] == [4.4, 9.3, 20.2]
    assert lloyd_max_snr_db(X, 16) is None


def test_table_is_measured_against_its_original():
    X, _ = matrices(200)
    measured = evaluate(ArrayVectors(X), quantize(X, 4), name="4 bits")
    table = quantize(X, 4)
    assert measured.frobenius_error == pytest.approx(table.frobenius_error, rel=1e-5)
    assert measured.nbytes == sum(table.nbytes.values())
    assert 0 <= measured.lloyd_max_snr_db - measured.snr_db < 3


def test_rows_in_another_order_are_compared_by_id():
    X, _ = matrices(200)
    order = np.random.default_rng(0).permutation(200)
    table = quantize(X[order], 4)
    aligned = TableVectors(table, np.argsort(order))
    assert compare(ArrayVectors(X), aligned).frobenius_error == pytest.approx(table.frobenius_error, rel=1e-5)


def test_report_as_text_and_json(report):
    text = report.to_text()
    assert "vectors.txt: 200 × 8" in text
    for word in ("eigenspace", "Spearman", "3CosAdd", "pairs", "family", "all questions"):
        assert word in text
    parsed = json.loads(report.to_json())
    assert [f["nbit"] for f in parsed["compressed"]] == [4, 1]
    assert parsed["analogies"][1]["value"] is None


@pytest.mark.parametrize(("max_loss", "expected"), [(100, "1 bit"), (20, "4 bits"), (1e-9, None)])
def test_smallest_table_within_the_loss_is_recommended(report, max_loss, expected):
    chosen = recommend(report, max_loss, "eigenspace")
    assert (chosen and chosen.name) == expected


def test_recommendation_needs_the_measure():
    with pytest.raises(InputError, match="similarity was not measured"):
        recommend(Report("x", 1, 1, []), 1.0, "similarity")


@pytest.fixture(scope="module")
def report():
    X, _ = matrices(200)
    words = [f"w{i}" for i in range(200)]
    pairs = tuple((words[i], words[i + 1]) for i in range(50))
    questions = Questions(
        finder(words),
        [SimilaritySet("pairs", pairs, tuple(map(float, range(50))))],
        [AnalogySet("family", (tuple(words[:4]),)), AnalogySet("none", (("a", "b", "c", "d"),))],
    )
    original = ArrayVectors(X)
    scores = questions.score(original)
    compressed = [
        evaluate(original, quantize(X, nbit), name=name, questions=questions)
        for nbit, name in ((4, "4 bits"), (1, "1 bit"))
    ]
    return Report("vectors.txt", 200, 8, compressed, *scores)


def finder(words):
    rows = {word: row for row, word in enumerate(words)}
    return lambda words: np.array([rows.get(word, -1) for word in words], np.int64)
