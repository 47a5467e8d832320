"""Uploads with curl: of any size, with and without a content type, and refused ones."""

import json
import shutil
import subprocess

import pytest

import smallfry
from tests.helpers.servers import write_sfq

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

#: Bytes of a body; the larger of the two files exceeds it.
MAX_BODY = 1 << 16


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return start(folder, "--max-body", str(MAX_BODY), SMALLFRY_ADMIN_KEY="admin")


@pytest.fixture(scope="module", params=["small", "large"])
def file(request, tmp_path_factory):
    rows = 12 if request.param == "small" else 20_000
    path = write_sfq(tmp_path_factory.mktemp("sent") / f"{request.param}.sfq", rows, 300, 4)
    assert (path.stat().st_size > MAX_BODY) == (request.param == "large")
    return path


def curl(server, path, *arguments, key="admin"):
    """Run curl; return the status and the JSON of the response."""
    command = ["curl", "-sS", "-m", "60", "-H", f"x-api-key: {key}", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run([*command, f"{server.address}{path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(body)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-T", "{}"],
        ["-T", "{}", "-H", "expect: 100-continue"],
        ["-T", "{}", "-H", "expect:"],
        ["-T", "{}", "-H", "transfer-encoding: chunked"],
        ["-T", "{}", "-H", "content-type: application/octet-stream"],
        ["-X", "PUT", "--data-binary", "@{}", "-H", "content-type:"],
    ],
)
def test_a_file_is_stored(server, file, arguments):
    status, model = curl(server, "/models/words", *(argument.format(file) for argument in arguments))
    assert status in (200, 201)
    assert model["digest"] == smallfry.open(file).digest


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-X", "PUT", "--data-binary", "@{}"], 415),
        (["-X", "PUT", "-F", "file=@{}"], 415),
        (["-T", "{}", "-H", "content-type: application/json"], None),
    ],
)
def test_the_error_says_how_to_send_a_file(server, file, arguments, status):
    found, error = curl(server, "/models/other", *(argument.format(file) for argument in arguments))
    assert found == (status or (413 if file.stat().st_size > MAX_BODY else 400))
    assert "send a .sfq file itself as application/octet-stream, such as curl -T" in error["error"]["message"]


@pytest.mark.parametrize("expect", ["expect: 100-continue", "expect:"])
def test_a_refused_upload_gets_its_error(server, file, expect):
    status, error = curl(server, "/models/other", "-T", str(file), "-H", expect, key="wrong")
    assert (status, error["error"]["code"]) == (401, "invalid_api_key")


def test_a_path_is_json(server, file):
    curl(server, "/models/words", "-T", str(file))
    body = ["-X", "PUT", "-d", '{"path": "words.sfq"}']
    assert curl(server, "/models/again", *body, "-H", "content-type: application/json")[0] in (200, 201)
