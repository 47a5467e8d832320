"""Small tokenizers trained on texts, in the format of ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, Unigram, WordPiece


def wordpiece(texts: Iterable[str], size: int) -> dict[str, Any]:
    """Return a tokenizer as that of ``bert-base-uncased``."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    return _train(tokenizer, trainer, texts)


def unigram(texts: Iterable[str], size: int) -> dict[str, Any]:
    """Return a tokenizer with the pre-tokenizer of SentencePiece, and no normalizer."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    return _train(tokenizer, trainer, texts)


def byte_level(texts: Iterable[str], size: int) -> dict[str, Any]:
    """Return a tokenizer as that of GPT-2."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    return _train(tokenizer, trainer, texts)


def _train(tokenizer: Tokenizer, trainer: trainers.Trainer, texts: Iterable[str]) -> dict[str, Any]:
    tokenizer.train_from_iterator(texts, trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content
