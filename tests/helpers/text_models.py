"""Small static embedding models."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from safetensors.numpy import save_file

from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.text.convert import convert
from smallfry.text.model import Pooling, TextModel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple("the cat sat on a mat dog bark run ##s ##ing ##ed un ##un und 東 京 . , ! ? ' - é".split())
#: Texts of known words, of pieces, of unknown characters, of white space, and none.
TEXTS = (
    "the cat sat on a mat.",
    "The dogs barked!",
    "running, undone",
    "日本 🎉",
    " \t\n",
    "",
    "東京 cat",
    "a\0b",
)


def wordpiece(words: tuple[str, ...] = WORDS) -> str:
    """Return the JSON of a tokenizer as that of BERT, with all lower-case letters as pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    pieces = (*SPECIAL, *words, *ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase))
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    return str(tokenizer.to_str())


def unigram(words: tuple[str, ...] = WORDS) -> str:
    """Return the JSON of a tokenizer as that of XLM-RoBERTa, without its normalizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = (word.removeprefix("##") for word in words)
    pieces = dict.fromkeys([*(f"▁{word}" for word in words), *plain, "▁", *ascii_lowercase])
    scores = [("<unk>", 0.0), *((piece, -1.0 - number / 8) for number, piece in enumerate(pieces))]
    tokenizer = Tokenizer(models.Unigram(scores, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return str(tokenizer.to_str())


TOKENIZERS = {"wordpiece": wordpiece, "unigram": unigram}


def write_directory(
    folder: Path, kind: str = "wordpiece", *, dim: int = 8, rows: int | None = None, **config: object
) -> Path:
    """Write a model as model2vec does; with `rows`, tokens share rows by a mapping, and have weights."""
    tokenizer, rng = TOKENIZERS[kind](), np.random.default_rng(0)
    tokens = len(json.loads(tokenizer)["model"]["vocab"])
    tensors = {"embeddings": rng.standard_normal((rows or tokens, dim), np.float32)}
    if rows is not None:
        tensors["mapping"] = rng.integers(0, rows, tokens)
        tensors["weights"] = rng.uniform(0.1, 1, tokens).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "config.json").write_text(json.dumps({"normalize": True} | config))
    return folder


def write_text_model(
    path: Path,
    kind: str = "wordpiece",
    *,
    dim: int = 8,
    nbit: int = 32,
    rows: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a normalized model without vocabulary; with `rows`, tokens share rows and have weights."""
    converted = convert(TOKENIZERS[kind]().encode())
    tokens, rng = len(converted.tokens), np.random.default_rng(seed)
    tensors = converted.tensors
    if rows is not None:
        tensors = tensors._replace(
            token_rows=rng.integers(0, rows, tokens, np.uint32),
            token_weights=rng.uniform(0.1, 1, tokens).astype(np.float32),
        )
    pooling = Pooling(tokens, max_tokens=max_tokens, skip=converted.unknown, normalize=True)
    table = quantize(rng.standard_normal((rows or tokens, dim), np.float32), nbit)
    sfq.write(path, table, text=TextModel(tensors, pooling))
    return path
