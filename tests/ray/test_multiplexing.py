"""Model multiplexing: more models than a replica may keep open."""

import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from ray import serve

import smallfry
from tests.helpers.ray_cluster import deploy, reports
from tests.helpers.servers import eventually, write_sfq

HELD = 2
NAMES = [f"words-{number}" for number in range(3 * HELD)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        write_sfq(folder / f"{name}.sfq", 2000, 50, 2, seed=seed)
    return folder


@pytest.fixture(scope="module")
def many(proxy, folder):
    """Return the address of two replicas that serve three times the models one may keep open."""
    deploy([str(folder)], models_per_replica=HELD)
    yield proxy
    serve.delete("smallfry")


def opened():
    return sorted(({model.name for model in stats.models} for stats in reports()), key=sorted)


def test_every_model_is_served_and_no_replica_exceeds_its_limit(many, folder):
    stores = {name: smallfry.open(folder / f"{name}.sfq") for name in NAMES}
    chance = random.Random(0)
    queries = [
        (chance.choice(NAMES), [chance.randrange(2000) for _ in range(chance.randrange(1, 20))])
        for _ in range(1200)
    ]
    headers = {"accept": "application/octet-stream"}
    with httpx.Client(base_url=many, headers=headers, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        responses = pool.map(
            lambda query: client.post("/lookup", json={"model": query[0], "ids": query[1]}), queries
        )
        for (name, ids), response in zip(queries, responses, strict=True):
            assert response.status_code == 200
            assert response.headers["x-smallfry-digest"] == stores[name].digest
            assert response.content == stores[name].rows(ids).tobytes()
            assert "x-smallfry-spread" not in response.headers
    assert [len(names) for names in opened()] == [HELD, HELD]


def test_requests_go_to_the_replica_with_their_model(many):
    names, chance = NAMES[: 2 * HELD], random.Random(1)

    def settled():
        before = opened()
        for name in chance.choices(names, k=12):
            # A connection for each request, so that none is bound to a replica.
            response = httpx.post(f"{many}/lookup", json={"model": name, "tokens": ["the"]}, timeout=60)
            assert response.status_code == 200
            if opened() != before:
                return False
        return set().union(*before) == set(names)

    eventually(settled, 60)


def test_all_models_are_listed_described_and_sent(many, folder):
    listed = httpx.get(f"{many}/models", timeout=30).json()["models"]
    assert sorted(model["name"] for model in listed) == NAMES
    for model in listed:
        described = httpx.get(f"{many}/models/{model['name']}", timeout=30)
        assert described.json() == model
        file = httpx.get(f"{many}/models/{model['name']}/file", timeout=30)
        assert file.content == (folder / f"{model['name']}.sfq").read_bytes()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/lookup", {"tokens": ["the"], "model": "none"}),
        ("/lookup", {"tokens": ["the"], "model": 5}),
        ("/neighbors", {"token": "the", "model": "words-1", "k": -1}),
    ],
)
def test_errors_equal_those_of_a_single_server(many, folder, start, path, body):
    single = start(folder)
    expected = single.client.post(path, json=body)
    response = httpx.post(f"{many}{path}", json=body, timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (
        expected.status_code,
        expected.json()["error"]["code"],
    )


def test_a_request_without_a_model_gets_the_names(many):
    response = httpx.post(f"{many}/lookup", json={"tokens": ["the"]}, timeout=30)
    assert response.status_code == 422
    assert all(name in response.json()["error"]["message"] for name in NAMES)


def test_a_model_that_cannot_be_opened_is_unavailable(many, folder):
    broken = folder / "words-5.sfq"
    whole = broken.read_bytes()
    # Request other models until no replica has this one open.
    eventually(lambda: request_others(many), 30)
    broken.write_bytes(whole[: len(whole) // 2])
    try:
        response = httpx.post(f"{many}/lookup", json={"tokens": ["the"], "model": "words-5"}, timeout=30)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
        assert "words-5" in response.json()["error"]["message"]
    finally:
        broken.write_bytes(whole)
    response = httpx.post(f"{many}/lookup", json={"tokens": ["the"], "model": "words-5"}, timeout=30)
    assert response.status_code == 200


def request_others(address):
    for name in NAMES[:-1]:
        httpx.post(f"{address}/lookup", json={"tokens": ["the"], "model": name}, timeout=30)
    return NAMES[-1] not in set().union(*opened())
