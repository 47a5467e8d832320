"""Every crafted file is rejected by its own error, or used within bounds, by library, command and server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smallfry import cli
from tests.attacks.crafted import FILES
from tests.helpers.servers import write_sfq

Outcomes = dict[str, dict[str, Any]]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 10
ADMIN = {"authorization": "Bearer the-admin-key"}
LOOKUPS = (
    {"tokens": ["a", "b", "c", "d", "", "x"]},
    {"tokens": ["a", "x"], "oov": "mean", "dtype": "float16"},
    {"tokens": [["a"], []], "pool": "mean"},
    {"ids": [0, 1, 2, 3]},
)
FORMATS = (
    "application/json",
    "application/octet-stream",
    "application/vnd.safetensors",
    "application/vnd.smallfry.packed",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crafted")
    for name, file in FILES.items():
        (folder / f"{name}.sfq").write_bytes(file.build())
    return folder


@pytest.fixture(scope="module", params=["native", "numpy"])
def outcomes(request, folder):
    environ = os.environ | {"SMALLFRY_NATIVE": "1" if request.param == "native" else "0"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.attacks.usage", str(folder)]
    run = subprocess.run(
        command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert outcomes.keys() == FILES.keys()
    return outcomes


@pytest.mark.parametrize("name", FILES)
def test_the_library_rejects_or_uses_it(outcomes, name):
    outcome, file = outcomes[name], FILES[name]
    assert outcome["open"] == (file.open_error and file.open_error.__name__)
    assert outcome["verify"] == file.verify_error.__name__
    assert outcome["compress"] in ("InputError", "BadLineError")
    assert outcome["seconds"] < SECONDS


@pytest.mark.parametrize("name", FILES)
def test_the_command_reports_it_in_one_line(folder, name, capsys):
    path, rejected = str(folder / f"{name}.sfq"), FILES[name].open_error is not None
    for arguments, codes in (
        (["verify", path], {1}),
        (["info", path], {1} if rejected else {0, 1}),
        (["info", "--json", path], {1} if rejected else {0, 1}),
        (["lookup", "--packed", "--ids", path, "0"], {1} if rejected else {0}),
    ):
        code = cli.main(arguments)
        output, errors = capsys.readouterr()
        assert code in codes
        assert all(line.isprintable() for line in output.split("\n"))
        if "--json" in arguments and not code:
            json.loads(output, parse_constant=pytest.fail)
        if code:
            assert errors.startswith("smallfry: error: ") and errors.count("\n") == 1
            assert errors[:-1].isprintable() and len(errors) < 2000


def is_sound(response):
    """Whether a response has values, rejects the request, or reports that the file is damaged."""
    if response.status_code == 500:
        return bool(response.json()["error"]["code"] == "file_damaged")
    return response.status_code in (200, 406, 422)


@pytest.fixture(scope="module")
def server(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("served")
    write_sfq(folder / "honest.sfq")
    server = start(folder, SMALLFRY_ADMIN_KEY="the-admin-key")
    yield server
    code, log = server.stop()
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("name", FILES)
def test_the_server_rejects_or_uses_it_and_continues(server, name):
    client, raw = server.client, FILES[name].build()
    opens = FILES[name].open_error is None
    content = {"content-type": "application/octet-stream"} | ADMIN
    response = client.put("/models/crafted", content=raw, headers=content)
    assert response.status_code == (201 if opens else 409)
    if opens:
        for query in LOOKUPS:
            for accept in FORMATS:
                response = server.lookup(query | {"model": "crafted"}, accept=accept)
                assert is_sound(response)
        assert is_sound(client.post("/neighbors", json={"id": 0, "model": "crafted"}))
        assert client.get("/models/crafted").status_code == 200
        assert client.get("/models/crafted/file").content == raw
        assert client.delete("/models/crafted", headers=ADMIN).status_code == 204
    assert server.lookup({"tokens": ["the"], "model": "honest"}).json()["found"] == [True]
