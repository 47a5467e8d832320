"""docs/how-to/hazyresearch.md has every public name of HazyResearch/smallfry, and its counterparts exist."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest

from smallfry.nn import QuantEmbedding

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "how-to" / "hazyresearch.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in DOCS.splitlines() if line.startswith("| `")]


def quoted(text, pattern):
    return re.findall(rf"`({pattern})", text)


@pytest.mark.parametrize(
    "name", sorted(set(quoted(DOCS.split("## `smallfry.quant", 1)[1], r"smallfry(?:\.\w+)+")))
)
def test_names_of_this_package_exist(name):
    if f"## `{name}`" in DOCS:  # a module of the original
        return
    value = importlib.import_module("smallfry")
    for part in name.split(".")[1:]:
        if not hasattr(value, part):
            importlib.import_module(f"{value.__name__}.{part}")
        value = getattr(value, part)


@pytest.mark.parametrize("path", sorted(set(quoted(DOCS, r"(?:examples|tests)/[\w/.]+"))))
def test_files_exist(path):
    assert (ROOT / path).is_file()


def test_parameters_and_attributes_that_are_the_same_exist():
    same = {name for names, here in ROWS if here.startswith("the same") for name in quoted(names, r"\w+")}
    embedding = QuantEmbedding(3, 2, nbit=2)
    parameters = inspect.signature(QuantEmbedding).parameters
    assert len(same) == 10
    assert all(name in parameters or hasattr(embedding, name) for name in same)


@pytest.mark.skipif("ORIGINAL" not in os.environ, reason="ORIGINAL is not set to a checkout")
@pytest.mark.parametrize("module", ["compress", "quant_embedding", "utils"])
def test_page_has_every_public_name_of_the_original(module):
    tree = ast.parse((Path(os.environ["ORIGINAL"]) / "src" / "smallfry" / f"{module}.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names |= {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}
    section = DOCS.split(f"## `smallfry.{module}`")[1].split("\n## ")[0]
    assert {name for name in names if not name.startswith("_")} <= set(quoted(section, r"\w+"))
