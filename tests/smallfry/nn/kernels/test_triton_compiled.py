"""What the kernels become on a GPU: they are compiled for one here, which takes Triton and no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", minversion="3.6", reason="Triton 3.6 or newer compiles without a GPU")

ROOT = Path(__file__).resolve().parents[3]
PARTS = ["mean", "column_scale", "row_scale", "zero_rows"]
CASES = {
    "300 dimensions": ["gather", 2, None, 300, "float32", []],
    "a trellis": ["gather", 2, "trellis", 300, "float32", []],
    "odd dimensions": ["gather", 4, None, 301, "float32", []],
    "half precision": ["gather", 1, None, 300, "bfloat16", PARTS],
    "a paged trellis": ["paged", 3, "trellis", 160, "bfloat16", []],
    "a bag": ["sum", 2, None, 300, "float32", []],
    "a mean": ["mean", 4, "trellis", 300, "float16", []],
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    # A process of its own: what Triton imports is either compiled or interpreted, for good.
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environ["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    run = subprocess.run(
        [sys.executable, "-m", "tests.helpers.triton_ptx", json.dumps(list(CASES.values()))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environ,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return dict(zip(CASES, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_stores_write_16_bytes_at_once(compiled, case):
    assert compiled[case]["st.global.v4.b32"] >= 1


@pytest.mark.parametrize("case", ["300 dimensions", "a trellis", "a paged trellis"])
def test_rows_pass_through_no_shared_memory(compiled, case):
    assert not any("shared" in name or name == "bar.sync" for name in compiled[case])


def test_ids_and_codes_are_loaded_once_for_each_store(compiled):
    # Two bits: four values of a store are one byte of codes under one id of eight. The last tile has its own
    # stores.
    counts = compiled["300 dimensions"]
    assert counts["ld.global.b64"] == counts["ld.global.b8"] == counts["st.global.v4.b32"] / 2


def test_windows_of_four_values_take_three_bytes(compiled):
    # Fourteen bits are two bytes; the third is the first of the row, loaded where its bits follow the last.
    counts = compiled["a trellis"]
    assert counts["ld.global.b64"] == counts["ld.global.b8"] / 3 == counts["st.global.v4.b32"] / 2


def test_integer_instructions_take_less_time_than_the_memory(compiled):
    # An H200 writes 3.8 float32 or 7.3 bfloat16 values per clock and multiprocessor, which executes 64 such
    # instructions: see benchmarks/gpu/instructions.py.
    assert compiled["300 dimensions"]["integer"] < 9
    assert compiled["a paged trellis"]["integer"] < 11


def test_bags_wait_for_each_other_once_not_in_every_step(compiled):
    # Two at most find the longest bag; a step that waited would do so once for each row ahead.
    assert compiled["a bag"]["bar.sync"] <= 2


def test_operations_are_rounded_one_by_one(compiled):
    assert not any(name.startswith("fma") for counts in compiled.values() for name in counts)


def test_means_divide_exactly_and_halves_are_rounded_to_nearest(compiled):
    assert compiled["a mean"]["div.rn.f32"] >= 1
    for case in ("half precision", "a paged trellis"):
        assert any(name.startswith("cvt.rn.bf16") for name in compiled[case])
