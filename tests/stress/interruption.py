"""Kill ``smallfry compress`` at random moments: it leaves the old file or the new one, and nothing else.

python -m tests.stress.interruption --times 500
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np

import smallfry
from smallfry import cli
from smallfry.sfq.verify import verify

ROWS, DIM = 4000, 50


def main() -> None:
    """Kill that often; exit with 1 if a file was broken or anything was left behind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=500, help="number of kills (500)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = kill_repeatedly(Path(folder), options.times)
    print(f"{options.times} kills: " + ", ".join(f"{n} {what}" for what, n in outcomes.items()))
    sys.exit(
        int(bool(outcomes.keys() - {"left the old file", "left the new file", "ended before it was killed"}))
    )


def kill_repeatedly(folder: Path, times: int) -> Counter[str]:
    """Return how often each outcome occurred."""
    sources = [write_text(folder / f"{seed}.txt", seed) for seed in range(2)]
    out, scratch = folder / "out", folder / "tmp"
    for made in (out, scratch):
        made.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    target = out / "table.sfq"
    digests = []
    for source in reversed(sources):
        begin = time.perf_counter()
        os.waitpid(start(source, target), 0)
        seconds = time.perf_counter() - begin
        digests.append(smallfry.open(target).digest)
    new, old = digests
    old_bytes = target.read_bytes()
    chance = random.Random(0)
    outcomes: Counter[str] = Counter()
    for _ in range(times):
        target.write_bytes(old_bytes)
        pid = start(sources[1], target)
        time.sleep(chance.uniform(0, 1.1 * seconds))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        outcomes[judge(target, old, new, killed=killed)] += 1
        for litter in [path for path in (*out.iterdir(), *scratch.iterdir()) if path != target]:
            outcomes[f"left {litter.name}"] += 1
            litter.unlink()
    return outcomes


def judge(target: Path, old: str, new: str, *, killed: bool) -> str:
    """Return what a kill left behind."""
    try:
        digest = verify(target).digest
    except (smallfry.SmallfryError, OSError) as error:
        return f"left a broken file: {error}"
    if not killed:
        return "ended before it was killed" if digest == new else "did nothing"
    return {old: "left the old file", new: "left the new file"}.get(digest, "left another file")


def start(source: Path, target: Path) -> int:
    """Compress in a new process; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with suppress(BaseException), open(os.devnull, "w") as null, redirect_stdout(null):
        code = cli.main(["compress", str(source), "-o", str(target), "--nbit", "2"])
    os._exit(code)


def write_text(path: Path, seed: int) -> Path:
    """Write vectors as text."""
    matrix = np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)
    with path.open("w") as file:
        for row, vector in enumerate(matrix.tolist()):
            file.write(f"token-{row} " + " ".join(map(str, vector)) + "\n")
    return path


if __name__ == "__main__":
    main()
