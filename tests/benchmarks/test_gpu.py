"""The benchmark of the GPU has to work on the day when there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", minversion="3.9", reason="the interpreter of Triton 3.9 or newer adds up bags")
pytest.importorskip("fastapi")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_every_part_runs_without_a_gpu_at_tiny_sizes(tmp_path):
    out = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--smoke", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    measured = [row["what"] for row in json.loads(out.read_text())["rows"]]
    for part in (
        "lookup, 16 bits",
        "bags of 20, 2 bits",
        "8 lookups",
        "break-even of sums",
        "server --device auto",
    ):
        assert any(what.startswith(part) for what in measured), part
