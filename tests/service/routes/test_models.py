"""Routes that list, describe, send and change models."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import smallfry
from tests.helpers.errors import error_of
from tests.helpers.servers import eventually, write_sfq

ADMIN = {"authorization": "Bearer the-admin-key"}


def names(server):
    return [model["name"] for model in server.client.get("/models").json()["models"]]


def replace(path, **options):
    """Put another vocabulary in place of a file, as one does: by renaming; return its digest."""
    new = write_sfq(path.with_suffix(".new"), **options)
    os.replace(new, path)
    return smallfry.open(path).digest


def test_lists_what_is_loaded(several, files):
    models = {model["name"]: model for model in several.client.get("/models").json()["models"]}
    assert list(models) == list(files)
    assert models["large"] == models["large"] | {"rows": 5000, "dim": 300, "nbit": 2, "has_vocabulary": True}
    assert models["large"]["bytes"] == smallfry.open(files["large"]).nbytes
    assert not models["ids"]["has_vocabulary"]


def test_describes_one_with_an_etag(several, files):
    response = several.client.get("/models/large")
    digest = smallfry.open(files["large"]).digest
    assert response.headers["etag"] == f'"{digest}"'
    assert response.headers["x-smallfry-digest"] == response.json()["digest"] == digest


@pytest.mark.parametrize("path", ["/models/small", "/models/small/file"])
def test_matching_etag_gets_304(several, path):
    tag = several.client.get(path).headers["etag"]
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = several.client.get(path, headers={"if-none-match": condition})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    assert several.client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_sends_the_file(several, files):
    response = several.client.get("/models/large/file")
    assert response.content == files["large"].read_bytes()
    assert response.headers["accept-ranges"] == "bytes"
    head = several.client.head("/models/large/file")
    assert head.headers["content-length"] == str(files["large"].stat().st_size)
    assert head.content == b""


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=4096-", 4096, None),
        ("bytes=-7", -7, None),
        ("bytes=10-99999999", 10, None),
    ],
)
def test_sends_a_range(several, files, asked, begin, end):
    content = files["small"].read_bytes()
    response = several.client.get("/models/small/file", headers={"range": asked})
    assert response.status_code == 206
    assert response.content == content[begin:end]
    first = begin % len(content)
    last = first + len(response.content) - 1
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=x-", "bytes=9-3", "bytes=-"])
def test_unknown_range_unit_gets_the_whole_file(several, files, asked):
    response = several.client.get("/models/small/file", headers={"range": asked})
    assert (response.status_code, response.content) == (200, files["small"].read_bytes())


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_range_outside_the_file_is_rejected(several, files, asked):
    response = several.client.get("/models/small/file", headers={"range": asked})
    assert f"'{asked}'" in error_of(response, 416)["message"]
    assert response.headers["content-range"] == f"bytes */{files['small'].stat().st_size}"


def test_outdated_if_range_gets_the_whole_file(several):
    headers = {"range": "bytes=0-1", "if-range": '"an-older-one"'}
    assert several.client.get("/models/small/file", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/models/glove", "/models/glove/file"])
def test_unknown_model_error_lists_the_models(several, path):
    assert "'small'" in error_of(several.client.get(path), 404)["message"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    write_sfq(folder / "a.sfq")
    return folder


@pytest.fixture(scope="module")
def open_one(folder, start):
    """A server over the folder that needs no key for a reload."""
    return start(folder)


@pytest.fixture(scope="module")
def administered(folder, start):
    """A server over the folder that has an admin key."""
    return start(folder, SMALLFRY_ADMIN_KEY="the-admin-key")


def load(server, folder, name, **options):
    """Make a file and have it served; return its path."""
    path = write_sfq(folder / f"{name}.sfq", **options)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: name in names(server))
    return path


def digest(server, name):
    response = server.lookup({"ids": [0], "model": name})
    assert response.status_code == 200
    return response.headers["x-smallfry-digest"]


def test_reload_takes_the_new_file(folder, open_one):
    path = load(open_one, folder, "reloaded")
    new = replace(path, seed=1)
    assert digest(open_one, "reloaded") != new
    assert open_one.client.post("/models/reloaded/reload").json()["digest"] == new
    assert digest(open_one, "reloaded") == new


def test_old_mapping_is_released(folder, open_one):
    path = load(open_one, folder, "mapped")
    maps = Path(f"/proc/{open_one.process.pid}/maps")
    assert str(path) in maps.read_text()
    replace(path, seed=1)
    assert f"{path} (deleted)" in maps.read_text()
    open_one.client.post("/models/mapped/reload")
    eventually(lambda: f"{path} (deleted)" not in maps.read_text())


def test_reload_needs_the_admin_key_if_configured(administered):
    error_of(administered.client.post("/models/a/reload"), 401)
    assert administered.client.post("/models/a/reload", headers=ADMIN).status_code == 200


def test_broken_new_file_is_rejected_and_the_old_stays_served(folder, open_one):
    path = load(open_one, folder, "broken")
    before = digest(open_one, "broken")
    new = folder / "nonsense"
    new.write_bytes(b"nonsense")
    os.replace(new, path)
    error = error_of(open_one.client.post("/models/broken/reload"), 409)
    assert error["code"] == "file_refused" and str(folder) not in error["message"]
    load(open_one, folder, "loaded-after-broken")
    assert digest(open_one, "broken") == before
    path.unlink()
    error_of(open_one.client.post("/models/broken/reload"), 409)
    assert digest(open_one, "broken") == before


def test_sighup_adds_new_files_and_drops_removed_ones(folder, open_one):
    changed, dropped = (load(open_one, folder, name) for name in ("changed", "dropped"))
    new = replace(changed, seed=2)
    dropped.unlink()
    load(open_one, folder, "added")
    assert digest(open_one, "changed") == new
    assert "dropped" not in names(open_one)


def test_put_serves_a_file_of_the_folders(folder, administered):
    other = write_sfq(folder / "other.bin", seed=3)
    response = administered.client.put("/models/put", json={"path": "other.bin"}, headers=ADMIN)
    assert response.status_code == 201
    assert digest(administered, "put") == response.json()["digest"] == smallfry.open(other).digest
    again = administered.client.put("/models/put", json={"path": "a.sfq"}, headers=ADMIN)
    assert again.status_code == 200
    assert digest(administered, "put") == smallfry.open(folder / "a.sfq").digest


def test_put_keeps_a_file_that_is_sent(folder, administered, several):
    seed = several.client.get("/models/large/file")
    headers = ADMIN | {"content-type": "application/octet-stream"}
    response = administered.client.put("/models/large", content=seed.content, headers=headers)
    assert response.status_code == 201
    assert (folder / "large.sfq").read_bytes() == seed.content
    query = {"ids": [1, 2, 4999], "model": "large"}
    assert administered.lookup(query).content == several.lookup(query).content


def test_concurrent_uploads_serve_the_file_on_disk(folder, start, tmp_path):
    contents = [write_sfq(tmp_path / str(seed), seed=seed).read_bytes() for seed in range(4)]
    headers = ADMIN | {"content-type": "application/octet-stream"}
    server = start(folder, SMALLFRY_ADMIN_KEY="the-admin-key")

    def put(content):
        url = f"{server.address}/models/raced"
        return httpx.put(url, content=content, headers=headers, timeout=30).status_code

    for _ in range(5):
        with ThreadPoolExecutor(len(contents)) as pool:
            assert set(pool.map(put, contents)) <= {200, 201}
        assert digest(server, "raced") == smallfry.open(folder / "raced.sfq").digest
    assert not list(folder.glob(".*"))


def test_put_rejects_and_removes_a_broken_file(folder, administered):
    before = sorted(folder.iterdir())
    headers = ADMIN | {"content-type": "application/octet-stream"}
    for name in ("a", "sent-broken"):
        response = administered.client.put(f"/models/{name}", content=b"nonsense", headers=headers)
        message = error_of(response, 409)["message"]
        assert "the file has 8 bytes" in message and str(folder) not in message and ".tmp" not in message
    assert sorted(folder.iterdir()) == before
    assert "sent-broken" not in names(administered)
    assert digest(administered, "a") == smallfry.open(folder / "a.sfq").digest


@pytest.mark.parametrize(
    "path",
    [
        "../outside.sfq",
        "/etc/passwd",
        "no-such.sfq",
        "",
        "\0",
        "link.sfq",
        3,
        "x" * 300,
        "é" * 5000,
        "a/" * 5000,
    ],
)
def test_put_rejects_paths_outside_the_folders(folder, administered, path):
    outside = write_sfq(folder.parent / "outside.sfq")
    link = folder / "link.sfq"
    link.symlink_to(outside)
    try:
        error_of(administered.client.put("/models/outside", json={"path": path}, headers=ADMIN), 422)
    finally:
        link.unlink()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("size", [300, 60_000])
@pytest.mark.parametrize(
    "path",
    [
        *("/models/{}", "/models/{}/file", "/models/{}/reload", "/v1/models/{}"),
        *("/dashboard/{}", "/dashboard/models/{}", "/docs/{}", "/{}"),
    ],
)
def test_a_long_path_is_an_error_of_the_client(administered, method, path, size):
    response = administered.client.request(method, path.format("x" * size), headers=ADMIN)
    assert response.status_code in (404, 405, 422, 431) and len(response.content) < 4000


def test_put_rejects_a_part_of_a_file(folder, administered):
    content = (folder / "a.sfq").read_bytes()
    for body in (content, content[:100]):
        headers = ADMIN | {"content-range": f"bytes 0-{len(body) - 1}/{len(content)}"}
        response = administered.client.put("/models/a", content=body, headers=headers)
        assert error_of(response, 400)["param"] == "Content-Range"
    assert (folder / "a.sfq").read_bytes() == content


@pytest.mark.parametrize("name", ["..%2Fb", ".b", "b%20c", "x" * 200])
def test_put_rejects_an_invalid_name(administered, name):
    before = names(administered)
    response = administered.client.put(f"/models/{name}", json={"path": "a.sfq"}, headers=ADMIN)
    assert response.status_code in (404, 422)
    assert names(administered) == before


def test_delete_stops_serving_and_keeps_the_file(folder, administered):
    path = load(administered, folder, "deleted")
    assert administered.client.delete("/models/deleted", headers=ADMIN).status_code == 204
    error_of(administered.lookup({"tokens": ["the"], "model": "deleted"}), 404)
    error_of(administered.client.delete("/models/deleted", headers=ADMIN), 404)
    assert path.exists()


def test_is_not_ready_without_models(start, tmp_path):
    server = start(tmp_path, SMALLFRY_ADMIN_KEY="the-admin-key")
    error_of(server.client.get("/readyz"), 503)
    assert server.client.get("/livez").status_code == 200
    error_of(server.lookup({"tokens": ["the"]}), 503)
    path = write_sfq(tmp_path / "first.sfq")
    server.client.put("/models/first", json={"path": path.name}, headers=ADMIN)
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_changes_are_disabled_without_an_admin_key(server, method):
    error = error_of(server.client.request(method, "/models/small", headers=ADMIN), 403)
    assert "--admin-key-file" in error["message"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_changes_need_the_admin_key(administered, method):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "the-admin-ke"}):
        error_of(administered.client.request(method, "/models/a", headers=headers), 401)


def test_no_response_is_mixed_or_lost_while_files_are_swapped(folder, open_one):
    path = load(open_one, folder, "swapped")
    expected = {}
    for seed in (0, 1):
        content = replace(path, seed=seed)
        expected[content] = smallfry.open(path).rows(range(12)).tobytes()
    done = threading.Event()

    def swap():
        for turn in range(40):
            replace(path, seed=turn % 2)
            open_one.process.send_signal(signal.SIGHUP)
        done.set()

    swapper = threading.Thread(target=swap)
    swapper.start()
    query = {"ids": list(range(12)), "model": "swapped"}
    seen = set()
    while not done.is_set():
        response = open_one.lookup(query, accept="application/octet-stream")
        assert response.status_code == 200
        seen.add(response.headers["x-smallfry-digest"])
        assert response.content == expected[response.headers["x-smallfry-digest"]]
    swapper.join()
    assert len(seen) == 2
