import re
from pathlib import Path

import pytest

import smallfry.nn
from smallfry.nn.packed import PARTS
from smallfry.nn.quantize import MODULE_OPTIONS

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "reference" / "torch.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*smallfry.nn.__all__, *PARTS, *MODULE_OPTIONS])
def test_page_names_every_public_name_buffer_and_option(name):
    assert f"`{name}" in DOCS or f" {name}" in DOCS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_/]+/)?(test_\w+\.py)`", DOCS))), ids="".join)
def test_tests_that_the_compatibility_table_names_exist(name):
    folder = ROOT / "tests" / ("smallfry" if name[0].startswith("nn/") else "ecosystem")
    assert (folder / "".join(name)).is_file()
