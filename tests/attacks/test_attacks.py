"""Every crafted file is refused by its own error, or answered within bounds, wherever it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from catalog import HERE, attacks
from serving import Server, write_sfq

from smallfry import cli

Start = Callable[..., Server]
Outcomes = dict[str, dict[str, Any]]

ATTACKS = {attack.name: attack for attack in attacks()}
SECONDS = 10
ADMIN = {"authorization": "Bearer the-admin-key"}
LOOKUPS: tuple[dict[str, Any], ...] = (
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacks")
    for attack in ATTACKS.values():
        (folder / f"{attack.name}.sfq").write_bytes(attack.raw)
    return folder


@pytest.fixture(scope="module", params=["native", "numpy"])
def outcomes(request: pytest.FixtureRequest, folder: Path) -> Outcomes:
    environ = os.environ | {"SMALLFRY_NATIVE": "1" if request.param == "native" else "0"}
    command = [sys.executable, "-W", "ignore", str(HERE / "using.py"), str(folder)]
    run = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    outcomes: Outcomes = json.loads(run.stdout)
    assert outcomes.keys() == ATTACKS.keys()
    return outcomes


@pytest.mark.parametrize("name", ATTACKS)
def test_the_library_refuses_it_or_answers(outcomes: Outcomes, name: str) -> None:
    outcome, attack = outcomes[name], ATTACKS[name]
    assert outcome["open"] == attack.opening
    assert outcome["verify"] == attack.verifying
    assert outcome["compress"] in ("InputError", "BadLineError")
    assert outcome["seconds"] < SECONDS


@pytest.mark.parametrize("name", ATTACKS)
def test_the_command_says_so_in_one_line(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, refused = str(folder / f"{name}.sfq"), ATTACKS[name].opening is not None
    for arguments, codes in (
        (["verify", path], {1}),
        (["info", path], {1} if refused else {0, 1}),
        (["info", "--json", path], {1} if refused else {0, 1}),
        (["lookup", "--packed", "--ids", path, "0"], {1} if refused else {0}),
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


def is_sound(answer: httpx.Response) -> bool:
    """Whether an answer has values, refuses the request, or says that the file is damaged."""
    if answer.status_code == 500:
        return bool(answer.json()["error"]["code"] == "file_damaged")
    return answer.status_code in (200, 406, 422)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start: Start) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    write_sfq(folder / "honest.sfq")
    server = start("--embeddings", str(folder), "--port", "0", SMALLFRY_ADMIN_KEY="the-admin-key")
    yield server
    code, log = server.stop()
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ATTACKS)
def test_the_server_refuses_it_or_answers_and_serves_on(server: Server, name: str) -> None:
    attack, client = ATTACKS[name], server.client
    content = {"content-type": "application/octet-stream"} | ADMIN
    answer = client.put("/models/crafted", content=attack.raw, headers=content)
    assert answer.status_code == (201 if attack.opening is None else 409)
    if attack.opening is None:
        for query in LOOKUPS:
            for accept in FORMATS:
                answer = server.lookup(query | {"model": "crafted"}, accept=accept)
                assert is_sound(answer)
        assert is_sound(client.post("/neighbors", json={"id": 0, "model": "crafted"}))
        assert client.get("/models/crafted").status_code == 200
        assert client.get("/models/crafted/file").content == attack.raw
        assert client.delete("/models/crafted", headers=ADMIN).status_code == 204
    assert server.lookup({"tokens": ["the"], "model": "honest"}).json()["found"] == [True]
