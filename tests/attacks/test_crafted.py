"""Every crafted file is rejected by its own error, or used within bounds, by library, command and server."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest

from smallfry import cli
from tests.attacks.crafted import FILES
from tests.helpers.memory import growing
from tests.helpers.servers import write_sfq

Outcomes = dict[str, dict[str, Any]]

ROOT = Path(__file__).resolve().parents[2]
#: Seconds of all uses of a file.
SECONDS = 60
#: Bytes that one use of a file takes at most, besides twice its size.
MEMORY = 64 << 20
#: Large blocks go back to the system at once, so that memory of an earlier use hides no later one.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
ADMIN = {"authorization": "Bearer the-admin-key"}
LOOKUPS = (
    {"tokens": ["a", "b", "c", "d", "", "x"]},
    {"tokens": ["a", "x"], "oov": "mean", "dtype": "float16"},
    {"tokens": [["a"], []], "pool": "mean"},
    {"ids": [0, 1, 2, 3]},
    {"texts": ["ab cd", "é日" * 1000]},
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
    environ = os.environ | MALLOC | {"SMALLFRY_NATIVE": "1" if request.param == "native" else "0"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.attacks.usage", str(folder)]
    run = subprocess.run(
        command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert outcomes.keys() == FILES.keys()
    return outcomes


@pytest.mark.parametrize("name", FILES)
def test_the_library_rejects_or_uses_it(outcomes, name):
    outcome, file = outcomes[name], FILES[name]
    assert outcome["open"] == (file.open_error and file.open_error.__name__)
    assert outcome["verify"] == (file.verify_error and file.verify_error.__name__)
    assert outcome.get("encoder") in (
        file.encoder_error and file.encoder_error.__name__,
        "InputError",  # without the native module
    )
    assert outcome["compress"] in ("InputError", "BadLineError")
    assert outcome["seconds"] < SECONDS


@pytest.mark.parametrize("name", FILES)
def test_no_use_takes_more_memory_than_twice_the_file(outcomes, folder, name):
    most = 2 * (folder / f"{name}.sfq").stat().st_size + MEMORY
    assert {use: peak for use, peak in outcomes[name]["memory"].items() if peak > most} == {}


@pytest.mark.parametrize("name", FILES)
def test_the_command_reports_it_in_one_line(folder, name, capsys):
    path, rejected = str(folder / f"{name}.sfq"), FILES[name].open_error is not None
    for arguments, codes in (
        (["verify", path], {0} if FILES[name].verify_error is None else {1}),
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
    server = start(folder, SMALLFRY_ADMIN_KEY="the-admin-key", **MALLOC)
    yield server
    code, log = server.stop()
    assert code == 0
    assert "Traceback" not in log


#: Routes that go over all models, and those of one.
SHARED = (
    *("/", "/models", "/v1/models", "/stats", "/metrics", "/openapi.json", "/docs", "/readyz"),
    *("/dashboard/models", "/dashboard/traffic"),
)
OWN = ("/models/crafted", "/v1/models/crafted", "/dashboard/models/crafted")


def requests(server):
    """Yield functions that send a request each, with its name; their responses are sound."""
    for query in LOOKUPS:
        for accept in FORMATS:
            send = partial(server.lookup, query | {"model": "crafted"}, accept=accept)
            yield f"{query} {accept}", send
    for query in ({"id": 0, "k": 1000}, {"token": "a"}, {"vector": [1, 2, 3, 4, 5]}):
        yield f"{query}", partial(server.client.post, "/neighbors", json=query | {"model": "crafted"})
    for format in ("float", "base64"):
        body = {"model": "crafted", "input": "a b", "encoding_format": format}
        yield format, partial(server.client.post, "/v1/embeddings", json=body)
    for path in (*SHARED, *OWN):
        yield path, partial(server.client.get, path)
    yield "reload", partial(server.client.post, "/models/crafted/reload", headers=ADMIN)


@pytest.mark.parametrize("name", FILES)
def test_the_server_rejects_or_uses_it_and_continues(server, name):
    client, raw = server.client, FILES[name].build()
    opens, most = FILES[name].is_served, 2 * len(raw) + MEMORY
    content = {"content-type": "application/octet-stream"} | ADMIN
    with growing(server.process.pid) as growth:
        response = client.put("/models/crafted", content=raw, headers=content)
    assert response.status_code == (201 if opens else 409)
    assert growth.peak < most
    if opens:
        for request, send in requests(server):
            with growing(server.process.pid) as growth:
                response = send()
            assert response.status_code == 200 if request in SHARED + OWN else is_sound(response), request
            assert growth.peak < most, request
        assert client.get("/models/crafted/file").content == raw
        assert client.delete("/models/crafted", headers=ADMIN).status_code == 204
    assert server.lookup({"tokens": ["the"], "model": "honest"}).json()["found"] == [True]


def test_all_files_together_keep_no_other_model_from_being_served(folder, start, tmp_path):
    write_sfq(tmp_path / "honest.sfq")
    server = start(tmp_path, folder)
    names = {name for name, file in FILES.items() if file.is_served}
    for signal in (0, SIGHUP):
        server.process.send_signal(signal)
        for path in SHARED:
            assert server.client.get(path).status_code == 200, path
        stats = server.client.get("/stats").json()
        assert {model["name"] for model in stats["models"]} == {"honest", *names}
        assert {file["file"].removesuffix(".sfq") for file in stats["failed"]} == FILES.keys() - names
        assert server.lookup({"tokens": ["the"], "model": "honest"}).json()["found"] == [True]
    code, log = server.stop()
    assert code == 0 and "Traceback" not in log
