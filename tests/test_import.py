import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
before = set(sys.modules)
import {}
print(json.dumps([name.partition(".")[0] for name in set(sys.modules) - before]))
"""


def modules_loaded_by(name):
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name)], check=True, capture_output=True, timeout=60
    )
    return set(json.loads(answer.stdout))


def test_importing_smallfry_loads_only_numpy():
    third_party = modules_loaded_by("smallfry") - set(sys.stdlib_module_names) - {"smallfry"}
    assert third_party <= {"numpy"}


@pytest.mark.parametrize(
    "module", ["smallfry.store", "smallfry.compress", "smallfry.cli", "smallfry.client", "smallfry.ray"]
)
def test_library_loads_no_torch_ray_or_server(module):
    assert not modules_loaded_by(module) & {"torch", "ray", "fastapi", "uvicorn", "service"}


@pytest.mark.parametrize("module", ["service.cli", "service.process.main"])
def test_the_server_loads_neither_torch_nor_ray(module):
    assert not modules_loaded_by(module) & {"torch", "numba", "ray"}
