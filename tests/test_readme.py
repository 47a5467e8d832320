"""The README: its code and that of two pages of the docs runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from smallfry.compress import quantize
from smallfry.sfq import file as sfq
from smallfry.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs" / "how-to" / "language-model-tables.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n(.+?)^```", re.M | re.S)
# The blocks of the last page are one program.
BLOCKS = [*CODE.findall(README + PYTHON), "\n".join(CODE.findall(MODELS))]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_block_runs(tmp_path, monkeypatch, block):
    if "import torch" in block:
        pytest.importorskip("torch")
    matrix = np.random.default_rng(0).standard_normal((5, 128), np.float32)
    words = ["list", "string", "sorted", "of", "tuple"]
    sfq.write(tmp_path / "sample.sfq", quantize(matrix, 2), Vocabulary.build(words))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
