"""The programs behind the tables of docs/explanation/fidelity.md: their formulas, and that they run."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.fidelity import families, ranks, texts
from smallfry.evaluation import ArrayVectors
from smallfry.evaluation.geometry import compare
from tests.helpers.text_models import write_directory

ROOT = Path(__file__).parents[2]
WORDS = ["good", "bad", "film", "very", *(f"w{i}" for i in range(116))]
X = (np.random.default_rng(0).standard_normal((120, 16)) * np.linspace(0.3, 2, 16)).astype(np.float32)


@pytest.mark.parametrize("method", families.METHODS, ids=lambda m: m.name)
def test_measures_match_their_definition_by_singular_vectors(method):
    table, basis = method.compress(X)
    coded = table.decode(np.arange(120)).astype(np.float64)
    if basis is None and table.rotation is not None:
        coded = coded @ table.rotation.T.astype(np.float64)
    back = coded if basis is None else coded @ basis.T.astype(np.float64)
    measured = compare(ArrayVectors(X), ArrayVectors(back))

    x = X.astype(np.float64)
    left, left_coded = (np.linalg.svd(m, full_matrices=False)[0] for m in (x, coded))
    overlap = np.linalg.norm(left.T @ left_coded) ** 2 / max(x.shape[1], coded.shape[1])
    assert measured.eigenspace_overlap == pytest.approx(overlap, rel=1e-5)
    assert measured.pip_loss == pytest.approx(
        np.linalg.norm(x @ x.T - coded @ coded.T) / np.linalg.norm(x @ x.T), rel=1e-4
    )
    fitted = coded @ np.linalg.lstsq(coded, x, rcond=None)[0]
    assert measured.fit_error == pytest.approx(np.linalg.norm(x - fitted) / np.linalg.norm(x), rel=1e-4)


def test_fewer_dimensions_keep_the_largest_singular_values():
    table, basis = families.Method("dim/2", 32, 2).compress(X)
    assert table.codes.shape == (120, 8)
    left, values, right = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    best = (left[:, :8] * values[:8]) @ right[:8]
    np.testing.assert_allclose(table.decode(np.arange(120)) @ basis.T, best, atol=1e-4)
    overlap = compare(
        ArrayVectors(X), ArrayVectors(table.decode(np.arange(120)) @ basis.T)
    ).eigenspace_overlap
    assert overlap == pytest.approx(8 / 16)


def test_reversed_measure_has_a_negative_correlation():
    rising = {"eigenspace_overlap": 1, "knn_overlap": 0, "pip_loss": 1, "frobenius_error": 0, "fit_error": 1}
    falling = {"eigenspace_overlap": 0, "knn_overlap": 1, "pip_loss": 0, "frobenius_error": 1, "fit_error": 0}
    printed = ranks.ranks({"a": rising, "b": falling}, {"task": {"a": 0.9, "b": 0.1}})
    assert [line.split("|")[2].strip() for line in printed.splitlines()[2:]] == [
        "1.00 (2)",
        "-1.00 (2)",
        "-1.00 (2)",
        "1.00 (2)",
        "-1.00 (2)",
    ]


def test_families_are_measured_and_ranked(tmp_path):
    np.save(tmp_path / "v.npy", X)
    (tmp_path / "w.txt").write_text("\n".join(WORDS))
    for folder in ("pairs", "analogies", "sets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pairs" / "p.txt").write_text("\n".join(f"w{i} w{i + 1} {i % 7}" for i in range(40)))
    (tmp_path / "analogies" / "a.txt").write_text("w1 w2 w3 w4\nw5 w6 w7 w8\n")
    (tmp_path / "sets" / "custrev.all").write_text("1 good film\n0 bad film\n" * 20)
    options = {
        "--embeddings": "v.npy",
        "--words": "w.txt",
        "--similarity": "pairs",
        "--analogies": "analogies",
    }
    options |= {"--sentences": "sets", "--report": "r.json", "--results": "r.jsonl"}
    paths = [part for name, value in options.items() for part in (name, tmp_path / value)]
    methods = "4 uniform,1 uniform,dim/2"
    fixed = ["--sets", "CR", "--seeds", "1", "--methods", methods, "--queries", "20", "--threads", "1"]
    run("families", *paths, *fixed)
    report = json.loads((tmp_path / "r.json").read_text())
    assert [f["name"] for f in report["compressed"]] == methods.split(",")
    printed = run(
        *("ranks", "--reports", tmp_path / "r.json", "--tables"), *("--classification", tmp_path / "r.jsonl")
    )
    assert printed.count("(3)") == 15
    assert "| dim/2 | 0.00 |" in printed


def test_cosines_leave_out_texts_without_vector():
    a, b = np.float32([[1, 0], [0, 0], [1, 1]]), np.float32([[2, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(texts.cosines(a, b), [1, 0.5**0.5])


def test_text_models_are_compared_with_their_vectors_at_32_bits(tmp_path, capsys):
    model = write_directory(tmp_path / "model", dim=24)
    article = {"paragraphs": [{"qas": [{"question": "the cat sat"}, {"question": "a dog?"}]}]}
    (tmp_path / "squad.json.gz").write_bytes(gzip.compress(json.dumps({"data": [article]}).encode()))
    (tmp_path / "custrev.all").write_text("1 cat sat\n0 dog bark\n" * 20)
    options = ["--squad", tmp_path / "squad.json.gz", "--sentences", tmp_path, "--sets", "CR", "--seeds", "1"]
    texts.main([*map(str, options), "--codings", "32 uniform,4 best", str(model)])
    original, best = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[5:])
    assert original[0] == "| 32 uniform" and original[2:6] == ["1.0000"] * 4
    assert best[0] == "| 4 best" and 0.9 < float(best[3]) <= float(best[2]) < 1
    assert original[6] == best[6] == "100.0"


def run(script, *arguments):
    command = [sys.executable, "-m", f"examples.fidelity.{script}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
