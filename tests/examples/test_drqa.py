import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.drqa import batches, compare, metric, squad, train
from examples.drqa.model import Reader, best_spans

FOLDER = Path(train.__file__).parent
SENTENCES = ("The cat sat on the mat.", "In 1973 oil cost $3.50 a barrel.", "Warsaw isn't Kraków's twin.")


@pytest.mark.parametrize(
    ("prediction", "truths", "exact", "f1"),
    [
        ("October 1973", ["October 1973"], 1, 1),
        ("october, 1973.", ["October 1973"], 1, 1),
        ("the cat", ["a cat!"], 1, 1),
        ("cat", ["dog"], 0, 0),
        ("the big cat sat", ["big cat"], 0, 0.8),
        ("cat", ["dog", "the cat"], 1, 1),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 0),
        ("theatre", ["atre"], 0, 0),
        ("$3.50", ["350"], 1, 1),
        ("Kraków", ["krakow"], 0, 0),
    ],
)
def test_scores_match_the_official_metric(prediction, truths, exact, f1):
    assert metric.exact_match(prediction, truths) == exact
    assert metric.f1(prediction, truths) == pytest.approx(f1)


def test_a_question_without_prediction_scores_zero():
    assert metric.score({"a": "cat"}, {"a": ["cat"], "b": ["dog"]}) == {"exact_match": 50.0, "f1": 50.0}


def test_words_numbers_signs_and_clitics_are_tokens():
    text = squad.tokenize("It didn't cost $3.50 (he's sure) in the 1980s, état-major.")
    assert text.tokens == (
        *("It", "did", "n't", "cost", "$", "3.50", "(", "he", "'s", "sure", ")"),
        *("in", "the", "1980s", ",", "état", "-", "major", "."),
    )


@given(st.text())
def test_tokens_lose_only_white_space(raw):
    text = squad.tokenize(raw)
    assert "".join(text.tokens) == "".join(raw.split())
    assert [raw[a:b] for a, b in text.spans] == list(text.tokens)


def test_an_answer_covers_the_tokens_it_touches(dataset_file):
    questions = squad.read(dataset_file)["Article_0"]
    assert [q.passage.slice(*q.target) for q in questions] == ["cat", "1973", "isn't"]


def test_answer_outside_the_passage_is_rejected(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(_squad([_paragraph("A cat.", "Who?", "dog", 2)])))
    with pytest.raises(ValueError, match=r"has 'cat' at 2, the file says 'dog'"):
        squad.read(path)


def test_another_version_is_rejected(tmp_path):
    path = tmp_path / "v2.json"
    path.write_text(json.dumps({"version": "v2.0", "data": []}))
    with pytest.raises(ValueError, match=r"SQuAD 1\.1"):
        squad.read(path)


def test_the_split_keeps_articles_whole(real_data):
    train_set, test_set = squad.split(squad.read(real_data / "squad" / "dev-v1.1.json.gz"))
    assert (len(train_set), len(test_set)) == (8601, 1969)
    assert not {q.passage.raw for q in train_set} & {q.passage.raw for q in test_set}


def test_features_are_exact_and_lower_case_matches_and_frequency():
    passage = squad.tokenize("The cat saw the Cat")
    question = squad.Question("k", passage, squad.tokenize("the cat ?"), ("cat",), (1, 1))
    (batch,) = batches.Dataset([question], {"cat": 3, "saw": 4}).batches(1)
    assert batch.passage.tolist() == [[0, 3, 4, 0, 3]]
    expected = [[0, 1, 0.4], [1, 1, 0.4], [0, 0, 0.2], [1, 1, 0.4], [0, 1, 0.4]]
    assert batch.features[0] == pytest.approx(np.array(expected, np.float32))


def test_every_question_is_in_one_batch(dataset_file):
    questions = [q for qs in squad.read(dataset_file).values() for q in qs]
    shuffled = batches.Dataset(questions, {}).batches(4, torch.Generator().manual_seed(1))
    assert sorted(q.key for b in shuffled for q in b.questions) == sorted(q.key for q in questions)


def test_padding_takes_no_part_in_the_scores():
    torch.manual_seed(0)
    reader = Reader(torch.nn.Embedding(10, 6), 6, batches.FEATURES, hidden=4).eval()
    passage, question = torch.tensor([[1, 2, 3, -1]]), torch.tensor([[4, 5, -1]])
    start, end = reader(passage, torch.zeros(1, 4, batches.FEATURES), question)
    assert start[0, 3] == end[0, 3] == -torch.inf
    assert best_spans(start, end)[0][1] < 3


def test_the_best_span_is_ordered_and_short():
    start = torch.tensor([[0.0, 0.0, 9.0, 0.0]])
    end = torch.tensor([[8.0, 0.0, 0.0, 7.0]])
    assert best_spans(start, end) == [(2, 3)]
    assert best_spans(start, end, longest=1) == [(2, 2)]


def test_the_embedding_is_never_trained():
    reader = Reader(torch.nn.Embedding(10, 6), 6, batches.FEATURES, hidden=4)
    assert not any(p.requires_grad for p in reader.embedding.parameters())


@pytest.mark.parametrize(("nbit", "coding"), [("32", "uniform"), ("2", "uniform"), ("3", "best")])
def test_the_same_arguments_give_the_same_result(run, nbit, coding):
    assert run("--nbit", nbit, "--coding", coding) == run("--nbit", nbit, "--coding", coding)


def test_stopped_run_resumes_to_the_same_result(run, tmp_path, monkeypatch):
    whole = run("--checkpoint", str(tmp_path / "whole.pt"))
    original = train.Trainer.run
    monkeypatch.setattr(train.Trainer, "run", lambda trainer: original(trainer, epochs=1))
    run("--checkpoint", str(tmp_path / "stopped.pt"))
    monkeypatch.undo()
    assert run("--checkpoint", str(tmp_path / "stopped.pt")) == whole


def test_a_checkpoint_of_another_preset_is_rejected(run, tmp_path, monkeypatch):
    run("--checkpoint", str(tmp_path / "state.pt"))
    monkeypatch.setitem(train.PRESETS, "smoke", train.Preset(4, 1, 8, 1e-3, 0.1, 100))
    with pytest.raises(ValueError, match="Remove it to start over"):
        run("--checkpoint", str(tmp_path / "state.pt"))


@pytest.mark.parametrize(
    ("options", "what"),
    [(("--nbit", "1"), "set of vectors"), (("--seed", "1"), "seed"), (("--preset", "cpu"), "preset")],
)
def test_a_checkpoint_of_another_run_is_rejected(run, tmp_path, options, what):
    state = ("--checkpoint", str(tmp_path / "state.pt"))
    run(*state, "--nbit", "2")
    with pytest.raises(ValueError, match=f"was made with another .*{what}"):
        run(*state, "--nbit", "2", *options)


def test_the_script_trains_and_resumes(run, tmp_path, dataset_file):
    (tmp_path / "dev-v1.1.json").write_bytes(gzip.decompress(dataset_file.read_bytes()))
    command = [FOLDER / "run_drqa.sh", tmp_path, "--embeddings", tmp_path / "vectors.npy"]
    command += ["--words", tmp_path / "words.txt", "--preset", "smoke", "--nbit", "2"]
    environment = {**os.environ, "PYTHON": sys.executable}
    results = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert results[0]["f1"] == results[1]["f1"]
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == 1


def test_script_prints_its_usage(tmp_path):
    done = subprocess.run([FOLDER / "run_drqa.sh", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert "make FOLDER with prepare_drqa.sh" in done.stderr


def test_the_table_gives_means_and_changes():
    scores = [("32 uniform", 0, 60.0), ("32 uniform", 1, 62.0), ("2 best", 0, 60.5)]
    table = compare.table({"coding": c, "seed": s, "f1": f, "exact_match": f - 10} for c, s, f in scores)
    assert table.splitlines()[2:] == [
        "| 32 uniform | 2 | 61.00 | 1.41 |  | 51.00 |",
        "| 2 best | 1 | 60.50 |  | -0.50 | 50.50 |",
    ]


def test_existing_results_are_not_repeated(tmp_path, monkeypatch):
    results = tmp_path / "results.jsonl"
    results.write_text('{"coding": "32 uniform", "seed": 0, "f1": 1.0}\n')
    commands = []

    def fake(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, '{"coding": "2 best", "seed": 0, "f1": 2.0}\n')

    monkeypatch.setattr(subprocess, "run", fake)
    compare.compare(results, ["32 uniform", "2 best"], [0], ["--preset", "smoke"])
    assert [c[c.index("--nbit") : c.index("--seed")] for c in commands] == [
        ["--nbit", "2", "--coding", "best"]
    ]
    assert [run["coding"] for run in compare.read(results)] == ["32 uniform", "2 best"]


def test_prepare_rejects_a_file_of_another_digest(tmp_path, dataset_file):
    run = subprocess.run(
        [FOLDER / "prepare_drqa.sh", tmp_path / "out", dataset_file], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "not a known SQuAD 1.1 file" in run.stderr
    assert not list((tmp_path / "out").iterdir())


def test_prepare_leaves_nothing_of_a_file_that_ends_early(tmp_path, dataset_file):
    (tmp_path / "cut.json.gz").write_bytes(dataset_file.read_bytes()[:-20])
    run = subprocess.run(
        [FOLDER / "prepare_drqa.sh", tmp_path / "out", tmp_path / "cut.json.gz"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "could not be read to its end" in run.stderr
    assert not list((tmp_path / "out").iterdir())


def test_prepare_prints_where_the_data_is_published():
    run = subprocess.run([FOLDER / "prepare_drqa.sh"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "SQuAD-explorer" in run.stderr


def test_prepare_takes_the_development_set(tmp_path, real_data):
    source = real_data / "squad" / "dev-v1.1.json.gz"
    subprocess.run([FOLDER / "prepare_drqa.sh", tmp_path, source], check=True, capture_output=True)
    assert (tmp_path / "dev-v1.1.json").read_bytes() == gzip.decompress(source.read_bytes())


@pytest.fixture
def dataset_file(tmp_path):
    paragraphs = [
        _paragraph(SENTENCES[0], "Who sat?", "cat", 4),
        _paragraph(SENTENCES[1], "When did oil cost $3.50?", "1973", 3),
        _paragraph(SENTENCES[2], "Is Warsaw?", "isn't", 7),
    ]
    titles = [*squad.TEST_ARTICLES, "Article_0", "Article_1", "Article_2", "Article_3"]
    path = tmp_path / "squad.json.gz"
    content = {"version": "1.1", "data": [{"title": t, "paragraphs": paragraphs} for t in titles]}
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


@pytest.fixture
def run(tmp_path, dataset_file, capsys):
    """Return a function that trains the smoke preset and returns its result without the time."""
    words = sorted({t.lower() for s in SENTENCES for t in squad.tokenize(s).tokens})
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n", "utf-8")
    vectors = np.random.default_rng(0).standard_normal((len(words), 12)).astype(np.float16)
    np.save(tmp_path / "vectors.npy", vectors)

    def run(*options):
        fixed = ["--data", dataset_file, "--embeddings", tmp_path / "vectors.npy", "--preset", "smoke"]
        fixed += ["--words", tmp_path / "words.txt"]
        train.main([*map(str, fixed), *options])
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        del result["cpu_seconds"]
        return result

    return run


def _squad(paragraphs):
    return {"version": "1.1", "data": [{"title": "Article", "paragraphs": paragraphs}]}


def _paragraph(context, question, answer, start):
    answers = [{"text": answer, "answer_start": start}]
    return {"context": context, "qas": [{"id": f"{start}", "question": question, "answers": answers}]}
