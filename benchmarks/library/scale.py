"""Compress a table of many short vectors to 2 bits: time and peak memory of a separate process.

The same made-up table is compressed as a .npy file with a word list, and as text. The files take about 390
bytes a row, and 128 more while text is compressed.

    python -m benchmarks.library.scale                     # 1,000,000 rows
    python -m benchmarks.library.scale --rows 20000000 --rounds 3 --folder /data
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common.processes import ROOT, module

DIM = 32
_BLOCK = 100_000
_DIGITS = np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyz", np.uint8)


class Run(NamedTuple):
    """What one process took."""

    seconds: float
    cpu: float
    peak: int  # bytes resident, memory maps included


def main() -> None:
    """Make the files, and print the best of the rounds for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the files are made; the system's temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_files(folder, options.rows)
        print(f"{options.rows:,} × {DIM}, best of {options.rounds}\n{'':16}{'wall':>8}{'CPU':>9}{'peak':>10}")
        for label, file in ((".npy and words", "words.npy"), ("text", "vectors.txt")):
            runs = [compress(folder / file) for _ in range(options.rounds)]
            best = Run(*map(min, zip(*runs, strict=True)))
            print(f"{label:16}{best.seconds:6.1f} s{best.cpu:7.1f} s{best.peak / 1e6:7.0f} MB")


def make_files(folder: Path, rows: int) -> None:
    """Write ``words.npy``, its ``words.txt``, and both as ``vectors.txt``, with values of 7 characters."""
    random = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(folder / "words.npy", "w+", np.float32, (rows, DIM))
    with open(folder / "words.txt", "wb") as words, open(folder / "vectors.txt", "wb") as text:
        for begin in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - begin)
            units = np.rint(np.clip(random.normal(size=(count, DIM)) / 2, -9, 9) * 1e4).astype(np.int64)
            matrix[begin : begin + count] = units / 1e4
            tokens = _tokens(np.arange(begin, begin + count), random)
            newline = np.full((count, 1), ord("\n"), np.uint8)
            for file, columns in ((words, [tokens]), (text, [tokens, _values(units)])):
                characters = np.concatenate([*columns, newline], axis=1)
                file.write(characters[characters != 0].tobytes())


def _tokens(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return unique tokens of 8 to 10 characters, padded with zeros."""
    number = rows[:, None] // 36 ** np.arange(6) % 36
    tokens = _DIGITS[np.concatenate([number, random.integers(0, 36, (len(rows), 4))], axis=1)]
    return np.where(np.arange(10) < random.integers(8, 11, (len(rows), 1)), tokens, 0).astype(np.uint8)


def _values(units: np.ndarray) -> np.ndarray:
    """Return the characters of numbers in units of 1e-4, a space before each."""
    places = np.abs(units)[..., None] // 10 ** np.arange(4, -1, -1) % 10 + ord("0")
    text = np.empty((*units.shape, 8), np.uint8)
    text[..., 0] = ord(" ")
    text[..., 1] = np.where(units < 0, ord("-"), 0)
    text[..., 2], text[..., 3], text[..., 4:] = places[..., 0], ord("."), places[..., 1:]
    return text.reshape(len(text), -1)


def compress(file: Path) -> Run:
    """Run the command line on a file."""
    command = module("benchmarks.library.peak_memory", "text", str(file), str(file.with_suffix(".sfq")))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, json.loads(output.splitlines()[-1])["peak"])


if __name__ == "__main__":
    main()
