"""The memory that README and docs state is that of the chart, which the benchmark draws."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SVG = (ROOT / "docs" / "images" / "memory.svg").read_text(encoding="utf-8")
CHART = re.findall(r">([\d,]+) MB · (\d) process", SVG)


@pytest.mark.parametrize("processes", ["1", "8"])
def test_readme_has_the_memory_of_the_chart(processes):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| memory, {processes} process.*$", readme, re.M)[0]
    stated = re.findall(r"([\d,]+) MB", row)
    assert len(stated) == 5 and {(value, processes) for value in stated} <= {*CHART}


def test_comparison_has_the_memory_of_the_chart():
    page = (ROOT / "docs" / "explanation" / "comparison.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .+ \| ([\d,]+) MB \| ([\d,]+) MB \|$", page, re.M)
    assert {(one, "1") for one, _ in rows} | {(many, "8") for _, many in rows} == {*CHART}
