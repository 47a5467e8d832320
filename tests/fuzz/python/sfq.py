"""Fuzz the reader of ``.sfq`` files: using any file raises SfqError or returns a result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).resolve().parents[3]))
with atheris.instrument_imports(include=["smallfry"], enable_loader_override=False):
    import smallfry
    from smallfry.cli import info
    from smallfry.errors import SmallfryError
    from smallfry.sfq import verify

import numpy as np

from service.models.examples import examples
from service.routes.dashboard import distribution
from tests.helpers.crafted_files import MODELS, Crafted

FILE = os.memfd_create("fuzzed")
PATH = f"/proc/self/fd/{FILE}"
TOKENS = ["a", "b", "c", "d", "", "zz"]
TEXTS = ["ab cd", "dcba" * 50, "é日😀\0 ▁", ""]
STEPS = {
    "normalizer": [
        {"type": "characters"},
        {"type": "charsmap"},
        {"type": "prepend", "content": "ab"},
        {"type": "replace", "pattern": "a", "content": "bcd"},
        {"type": "replace_runs", "pattern": "b", "least": 2, "content": "c"},
        {"type": "strip", "left": True, "right": True},
    ],
    "pre_tokenizer": [
        *({"type": name} for name in ("bert", "whitespace", "whitespace_split", "punctuation")),
        {"type": "metaspace", "replacement": "▁", "prepend": "always", "split": True},
        *(
            {"type": "byte_level", "prefix_space": True, "pattern": pattern}
            for pattern in ("gpt2", "llama3", None)
        ),
    ],
    "added": [
        {"id": 3, "content": content, **dict.fromkeys(("lstrip", "rstrip"), True), "single_word": flag}
        | {"normalized": flag}
        for content, flag in (("ab", False), ("d", True), ("\0", False))
    ],
}


def fuzz(data: bytes) -> None:
    """Use one file, made from `data` in one of three ways."""
    provider = atheris.FuzzedDataProvider(data)
    kind = provider.ConsumeIntInRange(0, 2)
    if kind == 0:
        raw = provider.ConsumeBytes(len(data))
    elif kind == 1:
        raw = from_header(provider.ConsumeBytes(len(data)))
    else:
        raw = from_parts(provider)
    os.ftruncate(FILE, 0)
    os.pwrite(FILE, raw, 0)
    attempt(use)
    attempt(lambda: verify.verify(PATH))


def from_header(data: bytes) -> bytes:
    """Make a file whose header is the data before the first newline."""
    text, _, rest = data.partition(b"\n")
    length = -(-(8 + len(text)) // 4096) * 4096 - 8
    return length.to_bytes(8, "little") + text.ljust(length) + rest


def from_parts(provider: atheris.FuzzedDataProvider) -> bytes:
    """Make a file with some arrays, offsets and metadata changed."""
    make = provider.PickValueInList([Crafted, Crafted.trellis, text_model])
    crafted = text_model(provider) if make is text_model else make()
    if provider.ConsumeBool():
        crafted.add(
            mean=np.ones(5, np.float32),
            row_scale=np.ones(4, np.float16),
            rotation=np.eye(5, dtype=np.float32),
        )
    for name, array in crafted.arrays.items():
        if provider.ConsumeBool():
            content = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 2 * array.nbytes))
            content = content[: len(content) // array.itemsize * array.itemsize]
            changed = np.frombuffer(content, array.dtype)
            crafted.arrays[name] = changed.reshape(-1, array.shape[1]) if fits(changed, array) else changed
    if provider.ConsumeBool():
        crafted.metadata[provider.PickValueInList(list(crafted.metadata))] = provider.ConsumeUnicode(20)
    if provider.ConsumeBool():
        name = provider.PickValueInList(list(crafted.arrays))
        key = provider.PickValueInList(["dtype", "shape", "data_offsets"])
        value = provider.ConsumeUnicodeNoSurrogates(12)
        if key != "dtype":
            value = [provider.ConsumeInt(8) for _ in range(provider.ConsumeIntInRange(0, 3))]
        crafted.entries[name] = {key: value}
    return crafted.raw(json.dumps(crafted.header()).encode())


def text_model(provider: atheris.FuzzedDataProvider) -> Crafted:
    """Return a text model with any steps, and weights and rows of its tokens."""
    steps = {
        name: [provider.PickValueInList(known) for _ in range(provider.ConsumeIntInRange(0, 3))]
        for name, known in STEPS.items()
    }
    crafted = Crafted.text(provider.PickValueInList(list(MODELS)), **steps)
    trie = crafted.arrays["token_trie"]
    if {"type": "charsmap"} in steps["normalizer"]:
        crafted.add(charsmap=trie, charsmap_text=np.frombuffer(b"b\0c\0", np.uint8))
    if provider.ConsumeBool():
        crafted.add(token_rows=np.arange(4, dtype=np.uint32), token_weights=np.ones(4, np.float32))
    return crafted


def fits(changed: np.ndarray, array: np.ndarray) -> bool:
    """Return whether values can have the columns of an array."""
    return array.ndim == 2 and changed.size % array.shape[1] == 0


def use() -> None:
    """Use every part of a store; what a server or `info` says about any file raises nothing."""
    store = smallfry.open(PATH)
    if len(store) * store.dim > 1 << 20:
        return
    ids = np.arange(len(store))
    with np.errstate(all="ignore"):
        described = (store.describe(), store.describe_size(), distribution(store.table)._asdict())
        json.dumps((*described, examples(store)), allow_nan=False)
        info.text(store)
        json.dumps(info.facts(store), allow_nan=False)
        if store.vocabulary is not None:
            lengths = store.vocabulary.lengths(ids)
            assert (lengths >= 0).all() and (lengths <= store.nbytes["tokens"]).all()
            attempt(lambda: store.vocabulary.select(ids))
        store.rows(ids)
        store.codes(ids)
        for call in (
            lambda: store.lookup(TOKENS),
            lambda: store.lookup(TOKENS, oov="mean"),
            lambda: list(store),
            lambda: store.baseline_nbytes,
            lambda: store.neighbors(0),
            lambda: store.has_tokenizer and encode(store),
        ):
            attempt(call)


def encode(store: smallfry.Store) -> None:
    """Encode texts as they are, and from their token ids."""
    encoder = store.encoder()
    vectors = encoder.encode(TEXTS, threads=1)
    pooled = encoder.pool(*encoder.token_ids(TEXTS), threads=1)
    np.testing.assert_array_equal(vectors, pooled)


def attempt(call: object) -> None:
    """Ignore the errors that smallfry raises on purpose."""
    try:
        call()  # type: ignore[operator]
    except SmallfryError:
        return


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
