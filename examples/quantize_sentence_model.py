"""What compressing the embeddings of a sentence encoder costs.

    python examples/quantize_sentence_model.py --model all-MiniLM-L6-v2 --data "$SMALLFRY_DATA"

Replaces the embeddings of a pretrained SentenceTransformer by packed ones with `quantize_embed`, without
training it again, and prints the mean cosine between its vectors of questions before and after. The folder or
name on the Hugging Face Hub is that of the model; the data folder holds ``squad/dev-v1.1.json.gz``.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import Tensor

from smallfry import quantize_embed
from smallfry.table import KINDS

WIDTHS = (8, 4, 3, 2, 1)
SETTINGS: dict[str, dict[str, Any]] = {
    "every embedding": {"min_share": 0},
    "every embedding, center, row_scale": {"min_share": 0, "center": True, "row_scale": True},
    "default": {},
    "center, row_scale": {"center": True, "row_scale": True},
    "trellis": {"codebook_kind": "trellis"},
    "trellis, center, row_scale": {"codebook_kind": "trellis", "center": True, "row_scale": True},
    "trellis of 12 bits, center, row_scale": {
        "codebook_kind": "trellis",
        "trellis_state_bits": 12,
        "center": True,
        "row_scale": True,
    },
}


def questions(folder: Path, count: int) -> list[str]:
    """Return ``count`` of SQuAD's questions, from all articles."""
    with gzip.open(folder / "squad" / "dev-v1.1.json.gz") as file:
        articles = json.load(file)["data"]
    texts = [
        question["question"]
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    return texts[:: max(1, len(texts) // count)][:count]


def encode(model: SentenceTransformer, texts: list[str]) -> Tensor:
    """Return unit vectors, ``[len(texts), dim]``."""
    vectors: Tensor = model.encode(
        texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
    )
    return vectors


def mean_cosine(
    model: SentenceTransformer,
    texts: list[str],
    expected: Tensor,
    nbit: int,
    **options: Any,  # noqa: ANN401
) -> float:
    """Return the mean cosine between the vectors of ``model`` after quantization and ``expected``."""
    packed = quantize_embed(copy.deepcopy(model), nbit, **options)
    return float((encode(packed, texts) * expected).sum(1).mean())


def main() -> None:
    """Print a table, settings × bits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face Hub")
    parser.add_argument("--data", type=Path, required=True, help="folder with squad/dev-v1.1.json.gz")
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    texts = questions(arguments.data, arguments.questions)
    model = SentenceTransformer(arguments.model, device="cpu")
    expected = encode(model, texts)
    print(f"{'bits':40}" + "".join(f"{nbit:9}" for nbit in WIDTHS))
    for name, options in SETTINGS.items():
        widths = [nbit for nbit in WIDTHS if nbit in KINDS[options.get("codebook_kind", "uniform")]]
        cells = {nbit: f"{mean_cosine(model, texts, expected, nbit, **options):.4f}" for nbit in widths}
        print(f"{name:40}" + "".join(f"{cells.get(nbit, '–'):>9}" for nbit in WIDTHS), flush=True)


if __name__ == "__main__":
    main()
