"""What the README shows, as a new user would try it."""

import re
from pathlib import Path

import numpy as np
import pytest

from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.+?)^```", README, re.M | re.S)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_program_runs_as_it_is_written(tmp_path, monkeypatch, block):
    if "import torch" in block:
        pytest.importorskip("torch")
    matrix = np.random.default_rng(0).standard_normal((5, 128), np.float32)
    words = ["list", "string", "sorted", "of", "tuple"]
    sfq.write(tmp_path / "sample.sfq", quantize(matrix, 2), Vocabulary.build(words))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_every_page_is_named_and_every_page_named_is_there():
    named = set(re.findall(r"\]\(([^):]+)\)", README))
    assert {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md")} <= named
    assert all((ROOT / name).exists() for name in named)
