"""The language model with an n-gram table: its parts, and that the comparison runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.ngram_lm import __main__ as program
from examples.ngram_lm import train as training
from examples.ngram_lm.evaluate import evaluate
from examples.ngram_lm.model import LanguageModel, Size, ngrams
from examples.ngram_lm.tables import compress, rounded_to_fp8, rounded_to_int
from examples.ngram_lm.train import Recipe, train, update, windows

SIZE = Size(vocabulary=50, hidden=32, layers=1, length=8, orders=(2, 3), rows=100, dim=16)
TOKENS = np.random.default_rng(0).integers(0, 50, 400)
RECIPE = Recipe(steps=6, batch=2)


def test_rows_depend_on_the_last_tokens_only():
    ids = ngrams(np.array([7, 1, 2, 3, 9, 1, 2, 3, 8, 2, 3]), SIZE)
    assert ids.shape == (11, 2)
    assert ids.min() >= 0
    assert ids.max() < SIZE.rows
    assert np.array_equal(ids[3], ids[7])
    assert ids[10, 0] == ids[3, 0]
    assert ids[10, 1] != ids[3, 1]


def test_update_is_row_wise_adagrad():
    table, squares = torch.ones(4, 3), torch.tensor([0.0, 0.0, 1.0, 0.0])
    ids, grad = torch.tensor([[2, 0], [2, 3]]), torch.arange(12.0).view(2, 2, 3)
    update(table, squares, ids, grad, 0.5)
    twice = grad[0, 0] + grad[1, 0]
    accumulated = 1 + twice.square().mean()
    torch.testing.assert_close(table[2], 1 - 0.5 * twice / accumulated.sqrt())
    torch.testing.assert_close(squares[2], accumulated)
    assert torch.equal(table[1], torch.ones(3))


def test_interrupted_training_continues_to_the_same_result(tmp_path, monkeypatch):
    whole = train(TOKENS, SIZE, RECIPE, 0, tmp_path / "whole.pt")
    save, saved = training._save, []

    def save_and_stop(path, state):
        save(path, state)
        saved.append(state["step"])
        if state["step"] == 3:
            raise InterruptedError

    monkeypatch.setattr(training, "_SAVE_SECONDS", -1)
    monkeypatch.setattr(training, "_save", save_and_stop)
    with pytest.raises(InterruptedError):
        train(TOKENS, SIZE, RECIPE, 0, tmp_path / "part.pt")
    continued = train(TOKENS, SIZE, RECIPE, 0, tmp_path / "part.pt")
    assert saved == [1, 2, 3, 4, 5, 6]
    assert torch.equal(continued.table, whole.table)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(continued.model.state_dict()[name], value), name


def test_checkpoint_of_other_settings_is_rejected(tmp_path):
    train(TOKENS, SIZE, RECIPE, 0, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="Remove it, or give another folder"):
        train(TOKENS, SIZE, replace(RECIPE, steps=7), 0, tmp_path / "model.pt")


def test_integers_keep_the_largest_value():
    rows = torch.tensor([[0.5, -1.0, 0.24, 0.0], [0.0, 0.0, 0.0, 0.0]])
    third = 1 / 3
    expected = torch.tensor([[2 * third, -1.0, third, 0.0], [0.0] * 4])
    torch.testing.assert_close(rounded_to_int(rows, 3), expected)
    torch.testing.assert_close(
        rounded_to_int(rows[:1], 1), torch.tensor([[1, -1, 1, 1]]) * rows[:1].abs().mean()
    )
    torch.testing.assert_close(rounded_to_int(rows, 8), rows, atol=0.5 / 127, rtol=0)


def test_fp8_has_a_relative_error_of_a_16th():
    rows = torch.randn(50, 16) * torch.logspace(-6, 6, 50)[:, None]
    rows[3] = 0
    error = (rounded_to_fp8(rows) - rows).abs()
    smallest = rows.abs().amax(-1, keepdim=True) / 448 * 2**-6
    assert bool((error <= torch.maximum(rows.abs(), smallest) / 16 * 1.001).all())


def test_scores_against_their_definition(tmp_path):
    torch.manual_seed(0)
    model, table = LanguageModel(SIZE), torch.randn(SIZE.table)
    offsets = torch.from_numpy(SIZE.offsets[:-1])
    compressed = compress("2 uniform", table, SIZE, tmp_path)
    found = evaluate(
        model,
        lambda ids: table[ids + offsets],
        {"2 uniform": compressed.gather},
        windows(TOKENS, SIZE, 3, None),
    )
    (inputs, ids), *_ = windows(TOKENS, SIZE, 1000, None)
    rows = [table[ids + offsets], compressed.gather(ids)]
    with torch.no_grad():
        full, other = (torch.log_softmax(model(inputs[:, :-1], each), -1) for each in rows)
    loss = torch.nn.functional.nll_loss(other.flatten(0, 1), inputs[:, 1:].flatten())
    divergence = torch.nn.functional.kl_div(other, full, log_target=True, reduction="none").sum(-1).mean()
    assert found["2 uniform"].loss == pytest.approx(loss.item(), rel=1e-5)
    assert found["2 uniform"].divergence == pytest.approx(divergence.item(), rel=1e-3)
    assert found["2 uniform"].error == pytest.approx(((rows[0] - rows[1]).norm() / rows[0].norm()).item())
    assert found["full"].divergence == 0


def test_comparison_of_methods_and_seeds(tmp_path, capsys):
    text = tmp_path / "text"
    text.mkdir()
    for number in range(60):
        words = np.random.default_rng(number).integers(0, 40, 300)
        (text / f"{number}.txt").write_text(" ".join(f"word{word}" for word in words))
    sizes = "--steps 2 --batch 2 --vocabulary 300 --hidden 16 --layers 1 --rows 50 --dim 8 --validation 300"
    options = [
        "--folder",
        str(tmp_path / "run"),
        "--results",
        str(tmp_path / "r.jsonl"),
        "--roots",
        str(text),
    ]
    methods = ["--methods", "2 uniform,8 fp8,3 trellis+row-scale"]
    program.main([*options, *methods, *sizes.split(), "--seeds", "0,1"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[-6:]]
    names = ["full", "zeros", "2 uniform", "8 fp8", "3 trellis+row-scale"]
    assert [line[0] for line in lines[1:]] == [f"| {name}" for name in names]
    assert {line[1] for line in lines[1:]} == {"2"}
    program.main([*options, *methods, *sizes.split(), "--seeds", "0,1"])
    assert len(program.read(tmp_path / "r.jsonl")) == 10
