import json

import numpy as np
import pytest
import torch

from examples.sentence_classification import classify, sentences
from smallfry.compress import quantize

ROWS = {"good": 0, "bad": 1, "film": 2, "very": 3}


def test_words_are_looked_up_as_written_then_in_lower_case(folder):
    dataset = sentences.read(folder, "CR", ROWS)
    data = dataset.sentences
    assert dataset.texts[:2] == ["Good film", "unknown bad"]
    assert data.ids[:3].tolist() == [0, 2, 1]
    assert data.offsets[:3].tolist() == [0, 2, 3]
    assert data.labels[:2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "sizes"), [("CR", (40, 0, 0)), ("SST-2", (40, 20, 30)), ("TREC", (40, 0, 30))]
)
def test_a_split_uses_every_sentence_once(folder, name, sizes):
    data = sentences.read(folder, name, ROWS)
    split = data.split(seed=1)
    assert data.sizes == sizes
    assert sorted(np.concatenate([split.train, split.validation, split.test])) == list(range(sum(sizes)))
    if sizes[2]:
        assert split.test.tolist() == list(range(sum(sizes[:2]), sum(sizes)))


def test_a_seed_gives_one_split(folder):
    data = sentences.read(folder, "CR", ROWS)
    np.testing.assert_array_equal(data.split(3).test, data.split(3).test)
    assert data.split(3).test.tolist() != data.split(4).test.tolist()


def test_a_bag_is_the_mean_of_its_words(folder):
    X = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    data = sentences.read(folder, "CR", ROWS).sentences
    np.testing.assert_allclose(classify.bags(quantize(X, 32), data)[0], (X[0] + X[2]) / 2, rtol=1e-6)


def test_a_larger_penalty_gives_a_smaller_classifier():
    torch.manual_seed(0)
    features, labels = torch.randn(50, 3), torch.randint(0, 2, (50,))
    sizes = [float(classify.fit(features, labels, p).weight.detach().norm()) for p in classify.PENALTIES]
    assert sizes == sorted(sizes, reverse=True)


def test_a_run_prints_the_table_and_writes_each_accuracy(folder, tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.eye(4, 6, dtype=np.float32) + 0.1)
    (tmp_path / "w.txt").write_text("\n".join(ROWS))
    options = ["--data", folder, "--embeddings", tmp_path / "v.npy", "--words", tmp_path / "w.txt"]
    options += ["--sets", "CR,TREC", "--codings", "32 uniform,2 best", "--seeds", "2"]
    classify.main([*map(str, options), "--results", str(tmp_path / "r.jsonl")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| | 32 uniform | 2 best |"
    assert lines[2].startswith("| CR | 100.0 ± 0.0 |")
    results = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(results) == 8


@pytest.fixture
def folder(tmp_path):
    lines = ["1 Good film", "0 unknown bad"] * 20
    for name, count in [("custrev.all", 40), ("stsa.binary.train", 40), ("stsa.binary.dev", 20)]:
        (tmp_path / name).write_text("\n".join(lines[:count]), "latin-1")
    for name, count in [("stsa.binary.test", 30), ("TREC.train.all", 40), ("TREC.test.all", 30)]:
        (tmp_path / name).write_text("\n".join(lines[:count]), "latin-1")
    return tmp_path
