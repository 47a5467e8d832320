"""The short examples for torch run as they stand."""

import logging
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name, *arguments):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*arguments)


def test_embedding_from_a_tensor(capsys):
    run("quant_embedding_from_tensor")
    printed = capsys.readouterr().out
    assert "QuantEmbedding(1000, 50, nbit=4" in printed
    assert "200,000 bytes became 25,064" in printed


@pytest.mark.parametrize("nbit", [2, 32])
def test_embedding_from_a_file(capsys, tmp_path, nbit):
    (tmp_path / "glove.txt").write_text("the 0.5 -0.5\nof 0.25 0.5\nand -0.5 0.25\nto 0.5 0.25\n")
    run("quant_embedding_from_file", [str(tmp_path / "glove.txt"), "--nbit", str(nbit)])
    assert "the 0.500 -0.500 …\nof 0.250 0.500 …" in capsys.readouterr().out


def test_embedding_from_the_real_glove_file(capsys, real_data):
    run("quant_embedding_from_file", [str(real_data / "embeddings" / "glove.6B.50d.head-1000.txt")])
    assert "QuantEmbedding(1000, 50, nbit=2" in capsys.readouterr().out


def test_model_with_several_embeddings(capsys, caplog):
    with caplog.at_level(logging.INFO):
        run("quantize_model")
    assert "QuantEmbedding(20000, 128, nbit=2, padding_idx=0" in capsys.readouterr().out
    assert "embeddings took" in caplog.text


@pytest.fixture
def threads():
    """Restore the number of threads that an example changes."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_trained_models_lose_little(capsys, real_data):
    sizes = "--epochs 1 --limit 128 --nbits 4 --threads 1".split()
    run("quantize_trained_models", ["--data", str(real_data), *sizes])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [
        ["lstm", "32"],
        ["lstm", "4"],
        ["transformer", "32"],
        ["transformer", "4"],
    ]
    for before, after in (lines[:2], lines[2:]):
        assert abs(float(before[2][:-1]) - float(after[2][:-1])) < 3
        assert int(before[3].replace(",", "")) > 7.9 * int(after[3].replace(",", ""))
