"""Import a sharded model to a paged table: rate and memory of ``smallfry compress``, against targets.

The source has random rows of 160 values whose lengths differ by up to ten times, in four shards.

    python -m benchmarks.gather.importing                              # 1 GB each of bfloat16 and float32
    python -m benchmarks.gather.importing --megabytes 6400 --folder /data
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.common.comparison import Comparison, Spread, print_comparisons
from benchmarks.common.processes import ROOT, module, private_bytes
from benchmarks.gather.tables import DIM

SHARDS, CHUNK = 4, 1 << 17
RATE, PRIVATE_MB = 150.0, 1000.0
OPTIONS = ("--nbit", "3", "--codebook-kind", "trellis", "--row-scale")


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000, help="size of each source (1000)")
    parser.add_argument("--folder", help="where the files are made; the system's temporary one by default")
    options = parser.parse_args()
    comparisons: list[Comparison] = []
    for dtype in ("BF16", "F32"):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            index = make_source(Path(folder), dtype, options.megabytes)
            comparisons += measure(index, Path(folder) / "table.sfq", dtype)
    print_comparisons(comparisons)


def make_source(folder: Path, dtype: str, megabytes: int) -> Path:
    """Write the shards and their index; return the index."""
    itemsize = 2 if dtype == "BF16" else 4
    rows = megabytes * 1_000_000 // (DIM * itemsize * SHARDS)
    rng, shards = np.random.default_rng(0), {}
    for shard in range(SHARDS):
        name, tensor = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors", f"model.ngram.{shard}.weight"
        shards[tensor] = name
        entry = {"dtype": dtype, "shape": [rows, DIM], "data_offsets": [0, rows * DIM * itemsize]}
        header = json.dumps({tensor: entry}).encode()
        with open(folder / name, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for start in range(0, rows, CHUNK):
                values = rng.standard_normal((min(CHUNK, rows - start), DIM), np.float32)
                values *= rng.uniform(0.3, 3, (len(values), 1)).astype(np.float32)
                file.write(
                    (values.view(np.uint32) >> 16).astype("<u2").data if itemsize == 2 else values.data
                )
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    return index


def measure(index: Path, output: Path, dtype: str) -> Iterator[Comparison]:
    """Import the model in a process of its own."""
    nbytes = sum(path.stat().st_size for path in index.parent.glob("*.safetensors"))
    command = module("smallfry", "compress", str(index), "--tensor", "*ngram*", "-o", str(output), *OPTIONS)
    start, private = time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        with suppress(OSError):  # it has ended
            private = max(private, private_bytes(process.pid))
        time.sleep(0.05)
    wall, processor = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    if status:
        raise RuntimeError(f"the import ended with the status {os.waitstatus_to_exitcode(status)}")
    source = f"{nbytes / 1e6:,.0f} MB of {dtype}"
    rate = Spread.of([nbytes / 1e6 / processor])
    took = f"{wall:.1f} s, {processor:.1f} s of processor time"
    yield Comparison("import", f"{source} to 3 bits, per core", "", rate, RATE, unit="MB/s", took=took)
    memory = Spread.of([private / 1e6])
    yield Comparison("import", f"{source}: private memory", "", memory, PRIVATE_MB, at_least=False, unit="MB")


if __name__ == "__main__":
    main()
