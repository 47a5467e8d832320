"""``/metrics`` and ``/stats``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import smallfry
from service.models.model import Model
from service.observability import stats
from service.observability.metrics import BUCKETS, COUNTERS, FAMILIES, ROUTES, Meter, counts, render
from service.scoreboard import Scoreboard
from tests.helpers.metrics import difference, samples


def test_lists_every_family_with_its_type(server):
    text = server.client.get("/metrics").text
    for family in FAMILIES:
        assert f"# TYPE {family.name} {family.kind}\n" in text
        assert f"# HELP {family.name} " in text


def test_counts_requests_and_tokens(server):
    def act():
        server.lookup({"tokens": ["the", "cat", "?"]})
        server.client.post("/v1/lookup", json={"ids": [1]})
        server.lookup({"tokens": "the"})
        server.client.get("/models/small")
        server.client.get("/nowhere")

    found = difference(server, act)
    requests = found["smallfry_requests_total"]
    assert requests["/lookup", "200"] == 1
    assert requests["/v1/lookup", "200"] == 1
    assert requests["/lookup", "422"] == 1
    assert requests["/models/{name}", "200"] == 1
    assert requests["other", "404"] == 1
    assert found["smallfry_tokens_total"]["found",] == 3
    assert found["smallfry_tokens_total"]["unknown",] == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH"])
@pytest.mark.parametrize("route", [route for route in ROUTES if route != "other"])
def test_each_route_has_its_label_whatever_the_method(server, route, method):
    path = route.format(name="small", file="page.css")
    found = difference(server, lambda: server.client.request(method, path))
    counted = {label for (label, _), value in found["smallfry_requests_total"].items() if value}
    assert counted == {route, "/metrics"}


def test_requests_without_a_key_have_the_label_of_their_route(files, start):
    server = start(files["small"], SMALLFRY_API_KEYS="key")
    server.client.post("/lookup", json={"tokens": ["the"]})
    server.client.get("/stats")
    found = samples(server.client.get("/metrics", headers={"x-api-key": "key"}).text)[
        "smallfry_requests_total"
    ]
    assert found["/lookup", "401"] == found["/stats", "401"] == 1


def test_errors_are_listed_before_the_first(files, start):
    """A series that begins at 1 has no increase."""
    server = start(files["small"])
    found = samples(server.client.get("/metrics").text)["smallfry_requests_total"]
    assert set(found.values()) == {0}
    assert {route for route, _ in found} == set(ROUTES)
    for route in set(ROUTES) - {"other"}:
        assert {"200", "401", "429", "499", "500", "503", "504"} <= {
            code for label, code in found if label == route
        }
    assert {code for route, code in found if route == "other"} == {"400", "404", "431"}
    described = server.client.get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        for operation in methods.values():
            assert {(path, code) for code in operation["responses"]} <= set(found)


def test_durations_fall_into_buckets_from_ten_microseconds(server):
    found = difference(server, lambda: server.lookup({"tokens": ["the"]}))
    buckets = {
        bound: value
        for (route, bound), value in found["smallfry_request_duration_seconds_bucket"].items()
        if route == "/lookup"
    }
    assert min(map(float, buckets)) == BUCKETS[0] == 1e-5
    values = list(buckets.values())
    assert values == sorted(values) and values[-1] == 1
    assert 0 < found["smallfry_request_duration_seconds_sum"]["/lookup",] < 10
    assert found["smallfry_request_duration_seconds_count"]["/lookup",] == 1


def test_measures_the_models(several, files):
    found = samples(several.client.get("/metrics").text)
    for name, path in files.items():
        store = smallfry.open(path)
        parts = {part: size for part, size in store.nbytes.items() if part != "total"}
        assert {part: found["smallfry_store_bytes"][name, part] for part in parts} == parts
        assert found["smallfry_model_info"][name, store.digest, str(store.dim), str(store.nbit)] == 1
        assert 0 < found["smallfry_store_resident_bytes"][name,] <= path.stat().st_size


def test_residency_that_the_system_hides_is_null(files, monkeypatch):
    def hidden(*_):
        raise PermissionError

    monkeypatch.setattr("smallfry.pages.residency", hidden)
    model = Model.open("small", files["small"])
    models = SimpleNamespace(refresh=lambda: None, values=lambda: [model], failed={})
    devices = SimpleNamespace(device_of=lambda model: "cpu")
    now = stats.read(models, devices, Scoreboard(1, COUNTERS), 0.0).stats
    assert now.models[0].resident_bytes is None
    assert stats.samples(models, now)["smallfry_store_resident_bytes"] == []


def test_label_values_are_escaped():
    measured = {family.name: [] for family in FAMILIES}
    measured["smallfry_store_rows"] = [(('a"b\\c\nd',), 3)]
    found = samples(render(Scoreboard(1, COUNTERS).totals(), measured))
    assert found["smallfry_store_rows"] == {('a"b\\c\nd',): 3}


def test_counters_of_workers_are_summed():
    scoreboard = Scoreboard(3, COUNTERS)
    for worker in range(3):
        Meter(scoreboard.block(worker)).count_tokens(worker, 1)
    assert counts(scoreboard.totals(), "smallfry_tokens_total") == {"found": 3, "unknown": 3}


def test_unknown_routes_and_statuses_count_as_other():
    scoreboard = Scoreboard(1, COUNTERS)
    meter = Meter(scoreboard.block(0))
    meter.enter()
    meter.leave("/unheard-of", 418, 10**12)
    assert counts(scoreboard.totals(), "smallfry_requests_total") == {"other": 1}


def test_stats_report_bytes_by_part_and_the_baseline(server, files):
    stats = server.client.get("/stats").json()
    store = smallfry.open(files["small"])
    (model,) = stats["models"]
    assert model["bytes"] == store.nbytes
    assert model["float32_bytes"] == 12 * 7 * 4
    assert model["dict_bytes"] == store.baseline_nbytes["dict"]
    assert model["resident_bytes"] == files["small"].stat().st_size


def test_stats_report_the_memory_of_the_process(server):
    memory = server.client.get("/stats").json()["memory"]
    (process,) = memory["processes"]
    assert process["pid"] == server.process.pid
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    rss = int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Rss:"))) * 1024
    assert memory["rss"] == process["rss"] == pytest.approx(rss, rel=0.1)
    assert memory["private"] <= memory["pss"] <= memory["rss"]


def test_responses_have_a_request_id_and_timing(server):
    response = server.lookup({"tokens": ["the"]}, **{"x-request-id": "my-own.id/7"})
    assert response.headers["x-request-id"] == "my-own.id/7"
    timing = dict(part.strip().split(";dur=") for part in response.headers["server-timing"].split(","))
    assert set(timing) == {"find", "encode", "total"}
    assert 0 < float(timing["find"]) < float(timing["total"])


@pytest.mark.parametrize("request_id", ["", "two words", "x" * 200])
def test_an_invalid_request_id_is_replaced(server, request_id):
    response = server.client.get("/livez", headers={"x-request-id": request_id})
    assert response.headers["x-request-id"] not in ("", request_id)
