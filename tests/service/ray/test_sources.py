"""Models from other servers, downloaded once per machine, and the cache of open models."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

import smallfry
from service.errors import ConfigError, InvalidValue, Unavailable, UnknownModel
from service.models.registry import Models
from service.observability.metrics import COUNTERS, Meter, counts
from service.ray.multiplexing import ModelCache
from service.ray.sources import RemoteSources
from service.scoreboard import Scoreboard
from smallfry import InputError
from smallfry.download import MirrorError, fetch
from tests.helpers.scripted_server import ScriptedServer, response

NOBODY = "http://127.0.0.1:9/models/small"


@pytest.fixture
def cache(files):
    return ModelCache(
        RemoteSources([f"{name}={path}" for name, path in files.items()]), Scoreboard(1, COUNTERS)
    )


def test_concurrent_downloads_share_one_copy(server, files, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: fetch([f"{server.address}/models/small"], tmp_path), range(8)))
    (path,) = found
    assert path.read_bytes() == files["small"].read_bytes()
    assert [each for each in tmp_path.iterdir() if not each.name.endswith(".lock")] == [path]


@pytest.mark.parametrize(
    "item", ["small={0}", "{0}/models/small", "{0}/models/small/file", "words={0}/models/small", "small={0}/"]
)
def test_urls_name_a_server_or_a_model(server, tmp_path, item):
    sources = RemoteSources([item.format(server.address)], folder=tmp_path)
    (name,) = sources.names()
    assert name == item.partition("=")[0] or name == "small"
    assert sources.files() == ({name: sources.path(name)}, {})
    assert sources.path(name).parent == tmp_path


def test_the_next_server_is_tried_if_one_fails(server, tmp_path):
    sources = RemoteSources([f"small={NOBODY}", f"small={server.address}"], folder=tmp_path)
    assert sources.path("small").exists()


def test_paths_and_urls_can_be_combined(server, files, tmp_path):
    sources = RemoteSources([f"far={server.address}/models/small", f"near={files['small']}"], folder=tmp_path)
    assert sources.names() == ["far", "near"]
    assert sources.files()[0].keys() == {"far", "near"}
    with pytest.raises(ConfigError, match="both called 'near'"):
        RemoteSources([f"near={server.address}/models/small", f"near={files['small']}"])


def test_a_failed_download_leaves_no_file(server, tmp_path):
    with pytest.raises(MirrorError, match=r"404.*there is no model 'none'"):
        fetch([f"{server.address}/models/none"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_invalid_response_is_rejected(server, tmp_path):
    with pytest.raises(MirrorError, match="no server could send the file"):
        fetch([f"{server.address}/openapi.json"], tmp_path)
    with pytest.raises(MirrorError, match="no address was given"):
        fetch([], tmp_path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            response(b"", 302, Location="http://127.0.0.1:9/models/small"),
            "302: redirected to 'http://127.0.0.1:9/models/small', which is not followed",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{", "was lost"),
        (b"SSH-2.0\r\n", "not accepted"),
    ],
)
def test_redirects_and_broken_responses_are_errors(tmp_path, monkeypatch, script, message):
    monkeypatch.setattr("smallfry.client.remote.FIRST_PAUSE", 0.0)
    with ScriptedServer(*[script] * 4) as server, pytest.raises(MirrorError, match=message):
        fetch([f"{server.url}/models/small"], tmp_path)


def test_a_large_file_is_downloaded_in_parts(server, files, tmp_path, monkeypatch):
    size = files["small"].stat().st_size
    monkeypatch.setattr("smallfry.download._PART", size // 3)
    path = fetch([f"{server.address}/models/small"], tmp_path)
    assert path.read_bytes() == files["small"].read_bytes()


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("MAX_HEADER", -(1 << 20), "its description allows at most"), ("_MAX_FILL", 0, "too many for the disk")],
)
def test_a_file_that_is_too_large_is_not_downloaded(server, tmp_path, monkeypatch, limit, value, message):
    monkeypatch.setattr(f"smallfry.download.{limit}", value)
    with pytest.raises(MirrorError, match=message):
        fetch([f"{server.address}/models/small"], tmp_path)
    assert not list(tmp_path.glob("*.sfq"))


def plant_another_file(copy, files):
    copy.write_bytes(files["ids"].read_bytes())


def change_a_byte(copy, files):
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)


def let_others_write(copy, files):
    copy.chmod(0o666)


def plant_a_link(copy, files):
    copy.unlink()
    copy.symlink_to(files["small"])


def truncate(copy, files):
    os.truncate(copy, 100)


@pytest.mark.parametrize(
    "damage", [plant_another_file, change_a_byte, let_others_write, plant_a_link, truncate]
)
def test_a_copy_that_is_not_the_downloaded_file_is_replaced(server, files, tmp_path, damage):
    url = f"{server.address}/models/small"
    damage(fetch([url], tmp_path), files)
    copy = fetch([url], tmp_path)
    assert copy.read_bytes() == files["small"].read_bytes()
    assert stat.filemode(copy.lstat().st_mode) == "-rw-r--r--"


def test_a_verified_copy_is_not_read_again(server, tmp_path, monkeypatch):
    url = f"{server.address}/models/small"
    copy = fetch([url], tmp_path)
    monkeypatch.setattr("smallfry.download.verify", None)
    assert fetch([url], tmp_path) == copy


def test_a_folder_that_others_can_write_to_is_rejected(server, tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(MirrorError, match=r"other users can write .* chmod go-w"):
        fetch([f"{server.address}/models/small"], tmp_path)


def test_a_lock_file_that_is_a_link_is_not_followed(server, files, tmp_path):
    digest = smallfry.open(files["small"]).digest
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / f".{digest}.lock").symlink_to(target)
    with pytest.raises(MirrorError, match="symbolic links"):
        fetch([f"{server.address}/models/small"], tmp_path)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("item", ["http://127.0.0.1:9", "-x=http://127.0.0.1:9/models/small"])
def test_a_url_without_a_valid_name_is_rejected(item):
    with pytest.raises((ConfigError, InputError), match=r"does not name a model|cannot be called"):
        RemoteSources([item])


def test_a_lease_keeps_a_model_open(cache, files):
    name, other, *_ = files
    assert cache.names() == list(files)
    assert not cache
    lease = cache.lease(name)
    with lease.use():
        taken = cache.find(name)
        assert taken is cache[name]
        lease.__del__()
        assert not cache
        assert cache.find(name) is taken
    cache.lease(other)
    assert [model.name for model in cache.catalog()] == list(files)


def test_a_cache_finds_closed_models(cache, files):
    assert cache.find(next(iter(files))).name == next(iter(files))
    with pytest.raises(UnknownModel):
        cache.find("none")
    with pytest.raises(InvalidValue, match="has to name its model"):
        cache.find(None)


def test_a_cache_replaces_its_sources(cache, files, tmp_path):
    name, other, *_ = files
    scoreboard = Scoreboard(1, COUNTERS)
    meter = Meter(scoreboard.block(0))
    leases = [cache.lease(name), cache.lease(other)]
    before = cache[other]
    cache.replace_sources(RemoteSources([f"{other}={files[other]}"]), meter)
    assert [*cache] == cache.names() == [other]
    assert cache[other] is before
    cache.replace_sources(RemoteSources([f"{other}={NOBODY}"], folder=tmp_path), meter)
    assert counts(scoreboard.totals(), "smallfry_reloads_total") == {"success": 1, "failure": 1}
    assert cache[other] is before
    del leases


def test_good_models_are_served_if_others_cannot_be(files, tmp_path):
    (tmp_path / "empty.sfq").touch()
    (tmp_path / "x (1).sfq").touch()
    missing = tmp_path / "missing.sfq"
    sources = RemoteSources([f"far={NOBODY}", str(missing), str(files["small"]), str(tmp_path)])
    models = Models(sources, Scoreboard(1, COUNTERS))
    assert models.names() == ["small"]
    local = {str(path) for path in (missing, tmp_path / "empty.sfq", tmp_path / "x (1).sfq")}
    assert models.failed.keys() == {NOBODY} | local
    cache = ModelCache(sources, Scoreboard(1, COUNTERS))
    assert [model.name for model in cache.catalog()] == ["small"]
    assert cache.failed.keys() == local
    for name in ("far", "empty"):
        with pytest.raises(Unavailable, match=f"'{name}' cannot be opened now"):
            cache.find(name)


def test_a_file_that_has_a_models_name_is_not_served(server, files, tmp_path):
    sources = RemoteSources([f"ids={server.address}/models/small", str(files["ids"].parent)], folder=tmp_path)
    found, failed = sources.files()
    assert found.keys() == files.keys()
    assert found["ids"] != files["ids"]
    assert list(failed) == [str(files["ids"])]
