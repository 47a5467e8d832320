"""Files that pages use without creating them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary
from tests.helpers.tables import random_table
from tests.helpers.text_models import write_directory, write_text_model

WORDS = (
    "the of and to in a cat dog sat on mat king queen man woman house water music city list string sorted "
    "tuple word paris france rome italy one two three -lrb- --"
).split()
ROWS = 320


def vectors() -> dict[str, np.ndarray]:
    """Return word vectors of 300 dimensions, real ones where the folder of real data has them."""
    rng = np.random.default_rng(0)
    known: dict[str, np.ndarray] = {}
    if data := os.environ.get("SMALLFRY_DATA"):
        folder = Path(data) / "embeddings"
        names = (folder / "googlenews-8000.txt").read_text(encoding="utf-8").splitlines()
        known = dict(zip(names, np.load(folder / "googlenews-8000.300d.npy", mmap_mode="r"), strict=True))
    names = list(dict.fromkeys([*WORDS, *known, *(f"word-{row}" for row in range(ROWS))]))[:ROWS]
    made = rng.normal(0, 0.06, (ROWS, 300))
    return {name: np.asarray(known.get(name, row), np.float32) for name, row in zip(names, made, strict=True)}


def glove(path: Path) -> None:
    """Write word vectors as text."""
    lines = (f"{word} {' '.join(f'{value:.5g}' for value in row)}\n" for word, row in vectors().items())
    path.write_text("".join(lines), encoding="utf-8")


def words(path: Path) -> None:
    """Write compressed word vectors."""
    found = vectors()
    sfq.write(path, quantize(np.stack(list(found.values())), 2), Vocabulary.build(list(found)))


def sample(path: Path) -> None:
    """Write what `make serve` serves, with random vectors."""
    matrix = np.random.default_rng(0).standard_normal((len(WORDS), 128), np.float32)
    sfq.write(path, quantize(matrix, 2), Vocabulary.build(WORDS))


def ngram(path: Path) -> None:
    """Write a paged table."""
    sfq.write(path, random_table(1000, 160, 3, "trellis", parts=("row_scale",)).paged())


def shards(path: Path) -> None:
    """Write the index of a sharded checkpoint with n-gram tables, and its shards."""
    rng = np.random.default_rng(0)
    names = [f"model.ngram_embeddings.{number}.weight" for number in range(4)]
    files = {name: f"model-0000{number // 2 + 1}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in sorted(set(files.values())):
        tensors = {n: rng.standard_normal((200, 160), np.float32) for n in names if files[n] == file}
        save_file(tensors, path.parent / file)
    path.write_text(json.dumps({"metadata": {}, "weight_map": files}))


INPUTS: dict[str, Callable[[Path], object]] = {
    "glove.6B.300d.txt": glove,
    "glove.txt": glove,
    "glove.sfq": words,
    "words.sfq": words,
    "sample.sfq": sample,
    "ngram.sfq": ngram,
    "model.safetensors.index.json": shards,
    "potion-base-8M": write_directory,
    "potion.sfq": write_text_model,
}


class Inputs:
    """Makes each input once, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, code: str, folder: Path) -> None:
        """Copy the inputs that code names and does not create, where it expects them."""
        for name in re.findall(r"/(models|data|shared|run|secrets)\b", code):
            (folder / name).mkdir(exist_ok=True)
        for name in INPUTS:
            path = re.escape(name)
            created = rf"(?:-o|--output|-O|>) *{path}|(?:save|compress_file)\([^)]*\"{path}\""
            if not re.search(created, code):
                for under in set(re.findall(rf"(?<![\w.-])([\w/.-]*/)?{path}(?![\w.-])", code)):
                    target = folder / under.lstrip("/")
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copytree(self._made(name), target, dirs_exist_ok=True)

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        if not folder.is_dir():
            folder.mkdir()
            INPUTS[name](folder / name)
        return folder
