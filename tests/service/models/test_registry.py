"""Files that cannot be served: the others are, and the reasons are reported."""

import errno
import os
import signal

import httpx
import pytest

import smallfry
from service.errors import ConfigError
from service.models.model import Model
from service.models.registry import Models
from service.models.sources import Sources
from service.observability.metrics import COUNTERS, Meter
from service.scoreboard import Scoreboard
from smallfry.sfq import file as sfq
from tests.helpers.errors import error_of
from tests.helpers.metrics import gauge
from tests.helpers.servers import eventually, write_sfq


def spoil(folder):
    """Put files that cannot be served next to those of a folder; return a part of each reason by name."""
    (folder / "empty.sfq").touch()
    (folder / "text.sfq").write_text("the 0.1 0.2\n" * 100)
    (folder / "dangling.sfq").symlink_to(folder / "missing")
    (folder / "loop.sfq").symlink_to(folder / "loop.sfq")
    (folder / "directory.sfq").mkdir()
    os.mkfifo(folder / "pipe.sfq")
    write_sfq(folder / "x (1).sfq")
    write_sfq(folder / "line\nbreak.sfq")
    (folder / os.fsdecode(b"\xff.sfq")).touch()
    # Hidden files, such as those that macOS writes next to each file.
    (folder / "._x.sfq").write_bytes(b"\0\5\x16\7")
    (folder / ".sfq").touch()
    return {
        "empty.sfq": "0 bytes",
        "text.sfq": "header",
        "dangling.sfq": "the link points to a file that does not exist",
        "loop.sfq": "Too many levels of symbolic links",
        "directory.sfq": "Is a directory, expected a .sfq file",
        "pipe.sfq": "Not a regular file, expected a .sfq file",
        "x (1).sfq": "a model cannot be called 'x (1)'",
        "line\nbreak.sfq": "a model cannot be called 'line\\nbreak'",
        "\ufffd\ufffd\ufffd.sfq": "a model cannot be called '\\udcff'",
    }


def names(server):
    return [model["name"] for model in server.client.get("/models").json()["models"]]


def failed(server):
    return {file["file"]: file for file in server.client.get("/stats").json()["failed"]}


def open_models(*sources):
    return Models(Sources(map(str, sources)), Scoreboard(1, COUNTERS))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_bad_files_of_a_folder_are_reported_and_the_others_served(start, tmp_path, workers):
    write_sfq(tmp_path / "good.sfq")
    reasons = spoil(tmp_path)
    server = start(tmp_path, "--workers", workers)
    assert names(server) == ["good"]
    assert server.client.get("/readyz").status_code == 200
    files = failed(server)
    assert files.keys() == reasons.keys()
    for name, words in reasons.items():
        assert words in files[name]["message"] and str(tmp_path) not in files[name]["message"]
        assert files[name]["model"] is None
    assert f"{len(reasons)} cannot be served" in "\n".join(server.banner)
    assert gauge(server, "smallfry_failed_files") == len(reasons)
    _, log = server.stop()
    lines = [line for line in log.splitlines() if "cannot be served" in line]
    assert len(lines) == len(reasons)
    assert not any("._x" in line for line in log.splitlines())


def test_sighup_serves_repaired_and_new_files_and_keeps_models_of_bad_ones(start, tmp_path):
    for name in ("good", "spoiled"):
        write_sfq(tmp_path / f"{name}.sfq")
    (tmp_path / "repaired.sfq").touch()
    server = start(tmp_path, "--workers", "2")
    assert names(server) == ["good", "spoiled"] and failed(server).keys() == {"repaired.sfq"}
    before = smallfry.open(tmp_path / "spoiled.sfq").digest
    write_sfq(tmp_path / "repaired.sfq")
    write_sfq(tmp_path / "new.sfq")
    (tmp_path / "nonsense").write_text("nonsense")
    os.replace(tmp_path / "nonsense", tmp_path / "spoiled.sfq")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: sorted(names(server)) == ["good", "new", "repaired", "spoiled"])
    for _ in range(20):  # a connection each: whichever worker responds
        stats = httpx.get(f"{server.address}/stats").json()
        assert [(file["file"], file["model"]) for file in stats["failed"]] == [("spoiled.sfq", "spoiled")]
    response = server.lookup({"ids": [0], "model": "spoiled"})
    assert response.headers["x-smallfry-digest"] == before
    write_sfq(tmp_path / "spoiled.sfq", seed=1)
    assert server.client.post("/models/spoiled/reload").status_code == 200
    assert failed(server) == {}


def test_a_failed_reload_is_reported(start, tmp_path):
    path = write_sfq(tmp_path / "a.sfq")
    server = start(path)
    path.unlink()
    error_of(server.client.post("/models/a/reload"), 409)
    assert failed(server)["a.sfq"]["model"] == "a"
    server.process.send_signal(signal.SIGHUP)
    assert server.lookup({"tokens": ["the"]}).status_code == 200
    write_sfq(path)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: failed(server) == {})


def test_named_files_that_cannot_be_served_are_reported_and_the_others_served(files, start, tmp_path):
    server = start(tmp_path / "missing.sfq", files["small"], "--embeddings", f"words={tmp_path}/none.sfq")
    assert names(server) == ["small"]
    assert failed(server).keys() == {"missing.sfq", "none.sfq"}
    write_sfq(tmp_path / "none.sfq")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: sorted(names(server)) == ["small", "words"])
    assert failed(server).keys() == {"missing.sfq"}


def test_a_server_with_an_admin_key_starts_without_a_good_file(start, tmp_path):
    (tmp_path / "empty.sfq").touch()
    server = start(tmp_path, SMALLFRY_ADMIN_KEY="admin")
    assert failed(server).keys() == {"empty.sfq"}
    error_of(server.client.get("/readyz"), 503)
    content = write_sfq(tmp_path / "other").read_bytes()
    headers = {"x-api-key": "admin", "content-type": "application/octet-stream"}
    assert server.client.put("/models/empty", content=content, headers=headers).status_code == 201
    assert failed(server) == {}


def test_the_first_of_two_files_with_one_name_is_served(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_sfq(tmp_path / folder / "x.sfq")
    write_sfq(tmp_path / "b" / "y.sfq")
    models = open_models(tmp_path / "a", tmp_path / "b")
    assert {name: model.path for name, model in models.items()} == {
        "x": tmp_path / "a" / "x.sfq",
        "y": tmp_path / "b" / "y.sfq",
    }
    assert "another file is called 'x'" in models.failed[str(tmp_path / "b" / "x.sfq")]


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError("no memory")])
def test_a_lack_of_memory_is_logged_and_the_models_are_checked_again(tmp_path, monkeypatch, caplog, error):
    board = Scoreboard(1, COUNTERS)
    path = write_sfq(tmp_path / "a.sfq")
    models, other = (Models(Sources([str(tmp_path)]), board) for _ in range(2))

    def fail():
        raise error

    write_sfq(tmp_path / "b.sfq")
    other.load("b", tmp_path / "b.sfq")
    with monkeypatch.context() as patch:
        patch.setattr(board, "read", fail)
        models.maintain()
    assert "the models cannot be checked" in caplog.text and list(models) == ["a"]
    models.maintain()
    assert list(models) == ["a", "b"]
    with monkeypatch.context() as patch:
        path.write_bytes(b"nonsense")
        patch.setattr(models, "_open_all", lambda *_: fail())
        models.reopen(models.maintain())
    assert list(models) == ["b"] and "written to" in models.failed[str(path)]


def test_a_file_that_is_written_to_is_withdrawn_before_it_is_read_again(tmp_path, monkeypatch):
    path = write_sfq(tmp_path / "a.sfq")
    models = open_models(path)
    served, open_all = [], models._open_all

    def record(*arguments):
        served.extend(models)
        return open_all(*arguments)

    monkeypatch.setattr(models, "_open_all", record)
    before, content = models["a"].digest, write_sfq(tmp_path / "new", seed=1).read_bytes()
    path.write_bytes(content)
    models.reopen(models.maintain())
    assert served == [] and list(models) == ["a"] and models.failed == {}
    assert models["a"].digest != before


def test_a_file_that_is_listed_twice_is_served_once(tmp_path):
    path = write_sfq(tmp_path / "x.sfq")
    models = open_models(path, tmp_path, tmp_path)
    assert [*models] == ["x"] and models.failed == {}


def test_a_file_that_goes_between_listing_and_opening_does_not_affect_the_others(tmp_path, monkeypatch):
    gone = write_sfq(tmp_path / "gone.sfq")
    write_sfq(tmp_path / "stays.sfq")
    listdir = os.listdir

    def list_and_remove(folder):
        entries = listdir(folder)
        gone.unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "listdir", list_and_remove)
    models = open_models(tmp_path)
    assert [*models] == ["stays"] and "does not exist" in models.failed[str(gone)]


def test_models_stay_if_their_folder_cannot_be_read(tmp_path, monkeypatch):
    write_sfq(tmp_path / "x.sfq")
    models, meter = open_models(tmp_path), Meter(Scoreboard(1, COUNTERS).block(0))

    def fail(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "listdir", fail)
    os.rename(tmp_path / "x.sfq", tmp_path / "y.sfq")
    models.reload(meter)
    assert [*models] == ["x"] and "Permission denied" in models.failed[str(tmp_path)]
    monkeypatch.undo()
    models.reload(meter)
    assert [*models] == ["y"] and models.failed == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_to_read_is_reported(tmp_path):
    path = write_sfq(tmp_path / "secret.sfq")
    path.chmod(0)
    assert f"user {os.geteuid()}" in open_models(tmp_path).failed[str(path)]


def test_folders_whose_name_is_not_text_are_served(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    write_sfq(folder / "x.sfq")
    models = open_models(folder)
    models.refresh()
    assert [*models] == ["x"]


def test_processes_agree_on_files_that_change_after_they_were_listed(tmp_path):
    """Two registries on one scoreboard are two processes: each adopts what the other has listed."""
    path, other = write_sfq(tmp_path / "a.sfq"), write_sfq(tmp_path / "b.sfq")
    scoreboard = Scoreboard(1, COUNTERS)
    first = Models(Sources([str(path), str(other)]), scoreboard)
    second = Models(Sources([str(path), str(other)]), scoreboard)
    os.replace(write_sfq(tmp_path / "new", seed=1), path)
    first.load("a", path)
    os.replace(write_sfq(tmp_path / "new", seed=2), path)
    other.unlink()
    for models in (second, first, second):
        models.refresh()
    assert first["a"].digest == second["a"].digest == smallfry.open(path).digest
    third = Models.__new__(Models)
    third.__dict__ |= second.__dict__ | {"_models": {}, "_generation": -1}
    for models in (third, first):
        models.refresh()
        assert "does not exist" in models.failed[str(other)]


def test_a_process_without_descriptors_adopts_changes_later(tmp_path, monkeypatch):
    path, scoreboard = write_sfq(tmp_path / "a.sfq"), Scoreboard(1, COUNTERS)
    first, second = (Models(Sources([str(path)]), scoreboard) for _ in range(2))
    second.refresh()
    os.replace(write_sfq(tmp_path / "new", seed=1), path)
    digest = first.load("a", path).digest

    def fail(name, path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Model, "open", fail)
        second.maintain()
    assert second["a"].digest != digest and second.failed == first.failed == {}
    second.maintain()
    assert second["a"].digest == digest


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["a b={0}/x.sfq"], "a model cannot be called 'a b'"),
        (["a={0}/x.sfq", "a={0}/none.sfq"], "are both called 'a'"),
        (["{0}/x.sfq", "x={0}/y.sfq"], "are both called 'x'"),
        (["a={0}"], "is a folder"),
    ],
)
def test_wrong_options_are_errors(tmp_path, sources, words):
    for name in ("x", "y"):
        write_sfq(tmp_path / f"{name}.sfq")
    with pytest.raises(ConfigError, match=words):
        Sources(source.format(tmp_path) for source in sources)


def test_damaged_tokens_of_one_file_do_not_affect_the_others(files, start, tmp_path):
    """Mapping a file reads none of its tokens; no route over all models needs them."""
    mapped = sfq.map(files["small"])
    content = bytearray(files["small"].read_bytes())
    end_of_first = mapped.header.data_start + mapped.header.tensors["token_offsets"].begin + 4
    content[end_of_first : end_of_first + 4] = b"\xff" * 4
    (tmp_path / "damaged.sfq").write_bytes(content)
    server = start(tmp_path / "damaged.sfq", files["small"])
    assert names(server) == ["damaged", "small"] and failed(server) == {}
    for path in ("/openapi.json", "/metrics", "/dashboard/models", "/dashboard/models/damaged"):
        assert server.client.get(path).status_code == 200
    response = server.lookup({"tokens": ["the"], "model": "damaged"})
    assert response.json()["error"]["code"] == "file_damaged"
    assert server.lookup({"tokens": ["the"], "model": "small"}).json()["found"] == [True]
