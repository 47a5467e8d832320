"""The GPU benchmark runs without a GPU, so that it works when there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", minversion="3.9", reason="the interpreter of Triton 3.9 or newer adds up bags")
pytest.importorskip("fastapi")

ROOT = Path(__file__).resolve().parents[2]


def test_every_part_runs_without_a_gpu_at_tiny_sizes(tmp_path):
    out = tmp_path / "results.json"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.run", "--smoke", "--out", str(out)],
        cwd=ROOT,
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
