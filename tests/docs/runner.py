"""Run the code of a page, block after block, in one folder."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smallfry import kernels
from tests.docs.inputs import Inputs
from tests.docs.output import matches
from tests.docs.page import ROOT, Block, blocks
from tests.docs.shell import Shell
from tests.helpers.c_library import COMPILER, compile_and_link

NODE_MODULES = ROOT / "build" / "node" / "node_modules"
# Devices of a machine without a GPU.
DEVICES = {'"cuda"': '"cpu"', ".cuda()": ".cpu()", "--device cuda": "--device cpu", "--device auto": ""}


def run_page(page: Path, folder: Path, inputs: Inputs) -> None:
    """Run every block of a page, relative to the top folder, and compare what they print."""
    found = blocks((ROOT / page).read_text(encoding="utf-8"))
    inputs.copy("\n".join(block.code for block in found), folder)
    with Shell(folder) as shell:
        runner = Runner(page, shell)
        for block in found:
            runner.run(block)


class Runner:
    """What the blocks of a page share: the folder, servers, and the names of Python."""

    def __init__(self, page: Path, shell: Shell) -> None:
        self.page = page
        self.shell = shell
        self.names: dict[str, object] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        """Run a block and compare what it prints."""
        where = f"{self.page}:{block.line}"
        try:
            printed = getattr(self, f"_{block.language}")(block, self._localized(block.code))
        except subprocess.CalledProcessError as error:
            raise AssertionError(f"{where}\n{block.code}\n{error.output}") from None
        if block.output:
            shown = self._localized(block.output.code)
            same = matches(printed, shown, block.output.language)
            assert same, f"{where} prints\n\n{printed}\nand shows\n\n{shown}"

    def _localized(self, code: str) -> str:
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            for device, other in DEVICES.items():
                code = code.replace(device, other)
        return self.shell.localized(code)

    def _python(self, block: Block, code: str) -> str:
        # The lines of tracebacks are those of the page.
        source = "\n" * (block.line - 1) + code
        compiled = compile(source, str(self.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            result = eval(compiled, self.names)
            if inspect.iscoroutine(result):
                asyncio.run(result)
        return printed.getvalue()

    def _sh(self, block: Block, code: str) -> str:
        return self.shell.run(code)

    def _c(self, block: Block, code: str) -> str:
        if COMPILER is None or not kernels.native:
            pytest.skip("needs a C compiler and the native module")
        (self.shell.folder / "app.c").write_text(code)
        compile_and_link(self.shell.folder / "app.c", self.shell.folder / "app")
        return self.shell.run("./app")

    def _js(self, block: Block, code: str) -> str:
        if not shutil.which("node") or not (NODE_MODULES / "openai").is_dir():
            pytest.skip("the npm package openai is not installed: make test-ecosystem")
        (self.shell.folder / "node_modules").symlink_to(NODE_MODULES)
        (self.shell.folder / "app.mjs").write_text(code)
        return self.shell.run("node app.mjs")

    def _json(self, block: Block, code: str) -> str:
        json.loads(code)
        return ""

    def _yaml(self, block: Block, code: str) -> str:
        list(yaml.safe_load_all(code))
        return ""

    def _toml(self, block: Block, code: str) -> str:
        if sys.version_info >= (3, 11):
            import tomllib

            tomllib.loads(code)
        return ""

    def _text(self, block: Block, code: str) -> str:
        return ""
