from pathlib import Path

import pytest

import smallfry.nn
from smallfry.nn.packed import PARTS
from smallfry.nn.quantize import MODULE_OPTIONS

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "torch.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*smallfry.nn.__all__, *PARTS, *MODULE_OPTIONS])
def test_page_names_every_public_name_buffer_and_option(name):
    assert f"`{name}" in DOCS or f" {name}" in DOCS
