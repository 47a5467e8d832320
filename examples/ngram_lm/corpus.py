"""Text of installed packages (Python sources, documentation, manual pages) as tokens of a byte-level BPE."""

from __future__ import annotations

import gzip
import hashlib
import json
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOTS = (Path(sysconfig.get_path("stdlib")), Path("/usr/share/doc"), Path("/usr/share/man"))
SUFFIXES = {".py", ".txt", ".md", ".rst", *(f".{section}" for section in range(1, 9))}
"""Before ``.gz``. Translated manual pages, in folders of their own, are left out."""

_LARGEST = 200_000
_PARAGRAPH = 80
_HELD_OUT = 20

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Tokens of both splits; every file ends with token 0.

    Attributes
    ----------
    training, validation : ndarray of int64, shape [n]
    validation_bytes : int
        Size of the validation text in UTF-8.
    files : list of dict
        Path, SHA-256, characters after deduplication and split of each file.
    """

    training: Tokens
    validation: Tokens
    validation_bytes: int
    files: list[dict[str, str | int]]


def read(roots: Sequence[Path], megabytes: float, vocabulary: int) -> Corpus:
    """Collect text, fit the tokenizer to its training part, and encode it.

    The files of a root are read in the order of the digest of their relative path, up to `megabytes` million
    characters. A paragraph of 80 characters or more is kept only where it occurs first. The digest of its
    content selects about one file in 20 for validation.
    """
    files: list[dict[str, str | int]] = []
    texts: dict[str, list[str]] = {"training": [], "validation": []}
    seen: set[bytes] = set()
    for root in roots:
        remaining = round(megabytes * 1e6)
        for path, content in _files(root):
            digest = hashlib.sha256(content).digest()
            text = _deduplicated(content.decode("utf-8", "replace"), seen)[:remaining]
            if len(text) < _PARAGRAPH:
                continue
            split = "validation" if digest[0] % _HELD_OUT == 0 else "training"
            texts[split].append(text)
            files.append({"path": str(path), "sha256": digest.hex(), "characters": len(text), "split": split})
            remaining -= len(text)
            if remaining < _PARAGRAPH:
                break
    if not all(texts.values()):
        raise ValueError(f"{', '.join(map(str, roots))} have too little text for both splits")
    tokenizer = _tokenizer(texts["training"], vocabulary)
    return Corpus(
        _encoded(tokenizer, texts["training"]),
        _encoded(tokenizer, texts["validation"]),
        sum(len(text.encode()) for text in texts["validation"]),
        files,
    )


def cached(folder: Path, roots: Sequence[Path], megabytes: float, vocabulary: int) -> Corpus:
    """Return the corpus in `folder`; if it has none, `read` it and write its tokens and ``files.json``."""
    arrays, listed = folder / "tokens.npz", folder / "files.json"
    if not listed.exists():
        corpus = read(roots, megabytes, vocabulary)
        np.savez(
            arrays, training=corpus.training.astype(np.uint16), validation=corpus.validation.astype(np.uint16)
        )
        listed.write_text(
            json.dumps({"validation_bytes": corpus.validation_bytes, "files": corpus.files}, indent=1)
        )
    tokens, description = np.load(arrays), json.loads(listed.read_text())
    return Corpus(
        tokens["training"].astype(np.int64),
        tokens["validation"].astype(np.int64),
        description["validation_bytes"],
        description["files"],
    )


def _files(root: Path) -> Iterator[tuple[Path, bytes]]:
    paths = [path for path in root.rglob("*") if _is_text(path.relative_to(root)) and path.is_file()]
    for path in sorted(paths, key=lambda path: hashlib.sha256(bytes(path.relative_to(root))).digest()):
        if not path.is_symlink() and path.stat().st_size <= _LARGEST:
            content = path.read_bytes()
            yield path, gzip.decompress(content) if path.suffix == ".gz" else content


def _is_text(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    translated = name.suffix[1:].isdigit() and not path.parts[0].startswith("man")
    return name.suffix in SUFFIXES and not translated and "site-packages" not in path.parts


def _deduplicated(text: str, seen: set[bytes]) -> str:
    """Return the text without its long paragraphs in `seen`, and add the others to it."""
    kept = []
    for paragraph in text.split("\n\n"):
        if len(paragraph) >= _PARAGRAPH:
            digest = hashlib.sha256(paragraph.encode()).digest()
            if digest in seen:
                continue
            seen.add(digest)
        kept.append(paragraph)
    return "\n\n".join(kept)


def _tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    parts = [token for text in texts for token in (*tokenizer.encode(text).ids, 0)]
    return np.array(parts, np.int64)
