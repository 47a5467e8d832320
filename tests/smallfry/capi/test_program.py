"""A C program that is compiled with the installed header and library."""

import errno
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import smallfry
from smallfry import kernels
from smallfry.sfq import file as sfq
from tests.helpers.c_library import COMPILER, bfloat16, compile_and_link
from tests.helpers.tables import random_table

pytestmark = pytest.mark.skipif(not kernels.native or COMPILER is None, reason="needs a C compiler")


DOCS = (Path(__file__).parents[3] / "docs" / "reference" / "c.md").read_text(encoding="utf-8")
HEADER = (Path(__file__).parents[3] / "include" / "smallfry.h").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "program"
    compile_and_link(Path(__file__).parent / "program.c", path)
    return path


@pytest.mark.parametrize("paged", [False, True])
def test_program_gathers_the_rows_of_python(program, tmp_path, paged):
    table = random_table(3000, 160, 3, "trellis", parts=("mean", "column_scale", "row_scale"))
    sfq.write(tmp_path / "t.sfq", table.paged() if paged else table)
    ids = np.random.default_rng(0).integers(0, 3000, 500)
    rows = table.decode(ids)
    for name, values in (("ids", ids), ("f32", rows), ("f16", rows.astype("f2")), ("bf16", bfloat16(rows))):
        values.tofile(tmp_path / name)
    run = subprocess.run(
        [program, "t.sfq", "ids", "f32", "f16", "bf16"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{smallfry.__version__} 3000 160 0\n"


def documented():
    """Return the example in docs/reference/c.md."""
    return re.search(r"^```c\n(.+?)^```", DOCS, re.M | re.S)[1]


def commented():
    """Return the example in the comment of the header."""
    lines = re.search(r"^ \*     #include.+?^ \*     }$", HEADER, re.M | re.S)[0].splitlines()
    return "".join(line[7:] + "\n" for line in lines)


@pytest.mark.parametrize("code", [documented(), commented()], ids=["docs", "header"])
def test_example_runs(tmp_path, code):
    sfq.write(tmp_path / "ngram.sfq", random_table(8, 16, 2, "uniform").paged())
    (tmp_path / "app.c").write_text(code)
    compile_and_link(tmp_path / "app.c", tmp_path / "app")
    run = subprocess.run(["./app"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout + run.stderr == ""
    (tmp_path / "ngram.sfq").unlink()
    run = subprocess.run(["./app"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (1, f"ngram.sfq: {os.strerror(errno.ENOENT)}\n")
