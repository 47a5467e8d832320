"""The GPU benchmark runs without a GPU, with ``--smoke``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", minversion="3.9", reason="Triton's interpreter sums bags since 3.9")
pytest.importorskip("fastapi")

ROOT = Path(__file__).resolve().parents[2]


def test_smoke_run_has_rows_of_every_part(tmp_path):
    out = tmp_path / "results.json"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.run", "--smoke", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    measured = [row["name"] for row in json.loads(out.read_text())["rows"]]
    parts = (
        *("lookup, 16 bits", "bags of 20, 2 bits", "8 lookups", "gather of 48 rows, host"),
        *("break-even of sums", "server --device auto"),
    )
    for part in parts:
        assert any(name.startswith(part) for name in measured), part
