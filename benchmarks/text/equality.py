"""Compare token ids with those of the ``tokenizers`` package: ``python -m benchmarks.text.equality``."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from benchmarks.text import models, trained
from benchmarks.text.strings import long_texts, random_texts
from smallfry import kernels
from smallfry.text import settings
from smallfry.text.convert import convert

_BATCH = 2000


class Comparison:
    """A tokenizer in the native module and in the ``tokenizers`` package."""

    def __init__(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        converted = convert(data)
        tensors = {name: array for name, array in converted.tensors._asdict().items() if array is not None}
        parsed = settings.parse(converted.tensors.tokenizer.tobytes(), len(converted.tokens))
        self.tokens = converted.tokens
        self.added = [token["content"] for token in content["added_tokens"]]
        self._native = kernels.Tokenizer(parsed, tensors)
        self._reference = Tokenizer.from_str(data.decode())
        self._reference.no_truncation()
        self._reference.no_padding()

    def differences(self, texts: Iterable[str]) -> Iterator[tuple[str, list[int], list[int]]]:
        """Return the texts whose ids differ, with those of the native module and the expected ones."""
        remaining = iter(texts)
        while batch := list(islice(remaining, _BATCH)):
            ids, offsets = self._native.tokenize(batch, None, None, None)
            expected = self._reference.encode_batch_fast(batch, add_special_tokens=False)
            for text, (begin, end), encoding in zip(batch, pairwise(offsets.tolist()), expected, strict=True):
                found = ids[begin:end].tolist()
                if found != encoding.ids:
                    yield text, found, encoding.ids


def variants(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a tokenizer and others with changed options, by name."""
    kind = content["model"]["type"]
    changed = {"as it is": content}
    if kind == "WordPiece":
        for lowercase, strip_accents in ((False, False), (False, True), (True, False)):
            normalizer = content["normalizer"] | {"lowercase": lowercase, "strip_accents": strip_accents}
            name = f"lowercase={lowercase}, strip_accents={strip_accents}"
            changed[name] = content | {"normalizer": normalizer}
        unclean = content["normalizer"] | {"clean_text": False, "handle_chinese_chars": False}
        changed["clean_text=False, Whitespace"] = content | {
            "normalizer": unclean,
            "pre_tokenizer": {"type": "Whitespace"},
        }
        changed["Nmt, WhitespaceSplit and Punctuation"] = content | {
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "Lowercase"}]},
            "pre_tokenizer": _sequence(
                {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}
            ),
        }
    if kind == "Unigram":
        for prepend, split in (("first", True), ("never", True), ("always", False), ("first", False)):
            changed[f"Metaspace {prepend}, split={split}"] = content | {
                "pre_tokenizer": _metaspace(prepend, split)
            }
        changed["WhitespaceSplit and Metaspace never"] = content | {
            "pre_tokenizer": _sequence({"type": "WhitespaceSplit"}, _metaspace("never", True))
        }
        replace = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        strip = {"type": "Strip", "strip_left": True, "strip_right": True}
        changed["Precompiled, Strip and Replace, Metaspace first"] = content | {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    content["normalizer"],
                    strip | {"strip_left": False},
                    replace | {"content": "▁"},
                ],
            },
            "pre_tokenizer": _metaspace("first", True),
        }
        changed["Precompiled, Replace and Strip"] = content | {
            "normalizer": {"type": "Sequence", "normalizers": [content["normalizer"], replace, strip]},
            "pre_tokenizer": _metaspace("always", True),
        }
    if kind == "BPE" and content["model"]["byte_fallback"]:
        for option in ("byte_fallback", "fuse_unk", "ignore_merges"):
            model = content["model"] | {option: not content["model"][option]}
            changed[f"{option}={model[option]}"] = content | {"model": model}
    if kind == "BPE" and not content["model"]["byte_fallback"]:
        changed["Split of Llama 3"] = content | {
            "pre_tokenizer": _sequence(_LLAMA3, _byte_level(regex=False))
        }
        changed["a prefix, and ignore_merges"] = content | {
            "pre_tokenizer": _byte_level(prefix=True),
            "model": content["model"] | {"ignore_merges": True},
        }
        changed["no regular expression"] = content | {"pre_tokenizer": _byte_level(regex=False)}
    changed["normalized added tokens"] = _with_added(content)
    return changed


def _metaspace(prepend: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend, "split": split}


_LLAMA3 = {
    "type": "Split",
    "pattern": {
        "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    },
    "behavior": "Isolated",
    "invert": False,
}


def _byte_level(*, prefix: bool = False, regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def _sequence(*pre_tokenizers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(pre_tokenizers)}


def _with_added(content: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer with added tokens of all sorts, some of which are in the vocabulary."""
    content = copy.deepcopy(content)
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    added = [
        {"content": "Straße"},
        {"content": "the", "single_word": True},
        {"content": "New York", "lstrip": True},
        {"content": "new york city", "rstrip": True, "single_word": True},
        {"content": "<x>", "lstrip": True, "rstrip": True, "normalized": False},
        {"content": "<x><y>", "normalized": False},
        {"content": "_", "normalized": False, "single_word": True, "rstrip": True},
        {"content": "École", "single_word": True, "lstrip": True, "rstrip": True},
        {"content": "ing"},
    ]
    first = len(content["model"]["vocab"])
    content["added_tokens"] += [{"id": first + i, **token, **more} for i, more in enumerate(added)]
    vocabulary = content["model"]["vocab"]
    known = {*vocabulary} if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
    for new in content["added_tokens"]:
        if new["content"] in known:
            new["id"] = 0  # tokenizers takes the id of the vocabulary
    return content


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def report(name: str, comparison: Comparison, texts: Iterable[str], shown: int = 5) -> int:
    """Print how many texts have other ids, and the first of them; return their number."""
    differing = 0
    for text, found, expected in comparison.differences(texts):
        differing += 1
        if differing <= shown:
            print(f"  {text!a}\n    {found}\n    {expected}")
    print(f"{name}: {differing:,} differ", flush=True)
    return differing


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the tokenizers of the packages with weights, and changed ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="*", default=["wordpiece", "unigram", "bpe", "byte_level"])
    parser.add_argument("--count", type=int, default=200_000, help="random texts for each tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    questions, contexts = models.squad()
    long = long_texts()
    total = 0
    with TemporaryDirectory() as folder:
        contents = {
            "wordpiece": lambda: _read(models.wordpiece(Path(folder)) / "tokenizer.json"),
            "unigram": lambda: _read(models.unigram() / "tokenizer.json"),
            "bpe": lambda: _read(models.bpe()),
            "byte_level": lambda: trained.byte_level(contexts, 8000),
        }
        for kind in options.kind:
            content = contents[kind]()
            for name, changed in variants(content).items():
                comparison = Comparison(changed)
                drawn = random_texts(options.count, comparison.added, comparison.tokens, options.seed)
                total += report(f"{kind}, {name}: {len(questions):,} questions", comparison, questions)
                total += report(f"{kind}, {name}: {len(contexts):,} contexts", comparison, contexts)
                total += report(f"{kind}, {name}: {options.count:,} random texts", comparison, drawn)
                total += report(f"{kind}, {name}: {len(long):,} long texts", comparison, long)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
