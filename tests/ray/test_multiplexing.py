"""More vocabularies than a replica may hold are spread over replicas, and answered by all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from ray import serve

import smallfry
from tests.helpers.ray_cluster import deploy, reports
from tests.helpers.servers import Server, eventually, write_sfq

HELD = 2
NAMES = [f"words-{number}" for number in range(3 * HELD)]


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelves")
    for seed, name in enumerate(NAMES):
        write_sfq(folder / f"{name}.sfq", 2000, 50, 2, seed=seed)
    return folder


@pytest.fixture(scope="module")
def many(proxy: str, shelves: Path) -> Iterator[str]:
    """Where two replicas answer for three times as many vocabularies as one of them may hold."""
    deploy([str(shelves)], models_per_replica=HELD)
    yield proxy
    serve.delete("smallfry")


def opened() -> list[set[str]]:
    return sorted(({model.name for model in stats.models} for stats in reports()), key=sorted)


def test_every_model_is_served_and_no_replica_exceeds_its_limit(many: str, shelves: Path) -> None:
    stores = {name: smallfry.open(shelves / f"{name}.sfq") for name in NAMES}
    chance = random.Random(0)
    queries = [
        (chance.choice(NAMES), [chance.randrange(2000) for _ in range(chance.randrange(1, 20))])
        for _ in range(1200)
    ]
    headers = {"accept": "application/octet-stream"}
    with httpx.Client(base_url=many, headers=headers, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda query: client.post("/lookup", json={"model": query[0], "ids": query[1]}), queries
        )
        for (name, ids), answer in zip(queries, answers, strict=True):
            assert answer.status_code == 200
            assert answer.headers["x-smallfry-digest"] == stores[name].digest
            assert answer.content == stores[name].rows(ids).tobytes()
            assert "x-smallfry-spread" not in answer.headers
    assert [len(names) for names in opened()] == [HELD, HELD]


def test_requests_go_to_the_replica_that_has_their_vocabulary(many: str) -> None:
    asked, chance = NAMES[: 2 * HELD], random.Random(1)

    def settled() -> bool:
        before = opened()
        for name in chance.choices(asked, k=12):
            # A connection for each request, so that none is bound to a replica.
            answer = httpx.post(f"{many}/lookup", json={"model": name, "tokens": ["the"]}, timeout=60)
            assert answer.status_code == 200
            if opened() != before:
                return False
        return set().union(*before) == set(asked)

    eventually(settled, 60)


def test_all_of_them_are_listed_described_and_sent(many: str, shelves: Path) -> None:
    listed = httpx.get(f"{many}/models", timeout=30).json()["models"]
    assert sorted(model["name"] for model in listed) == NAMES
    for model in listed:
        described = httpx.get(f"{many}/models/{model['name']}", timeout=30)
        assert described.json() == model
        file = httpx.get(f"{many}/models/{model['name']}/file", timeout=30)
        assert file.content == (shelves / f"{model['name']}.sfq").read_bytes()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/lookup", {"tokens": ["the"], "model": "none"}),
        ("/lookup", {"tokens": ["the"], "model": 5}),
        ("/neighbors", {"token": "the", "model": "words-1", "k": -1}),
    ],
)
def test_an_error_has_the_form_of_the_single_server(
    many: str, shelves: Path, start: Callable[..., Server], path: str, body: object
) -> None:
    single = start(shelves)
    expected = single.client.post(path, json=body)
    answer = httpx.post(f"{many}{path}", json=body, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        expected.status_code,
        expected.json()["error"]["code"],
    )


def test_a_request_without_a_name_is_told_the_names(many: str) -> None:
    answer = httpx.post(f"{many}/lookup", json={"tokens": ["the"]}, timeout=30)
    assert answer.status_code == 422
    assert all(name in answer.json()["error"]["message"] for name in NAMES)


def test_a_file_that_cannot_be_opened_is_an_error_of_its_own(many: str, shelves: Path) -> None:
    broken = shelves / "words-5.sfq"
    whole = broken.read_bytes()
    # Whichever replica has it open drops it: others are asked for until none does.
    eventually(lambda: ask_others(many), 30)
    broken.write_bytes(whole[: len(whole) // 2])
    try:
        answer = httpx.post(f"{many}/lookup", json={"tokens": ["the"], "model": "words-5"}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert "words-5" in answer.json()["error"]["message"]
    finally:
        broken.write_bytes(whole)
    answer = httpx.post(f"{many}/lookup", json={"tokens": ["the"], "model": "words-5"}, timeout=30)
    assert answer.status_code == 200


def ask_others(address: str) -> bool:
    for name in NAMES[:-1]:
        httpx.post(f"{address}/lookup", json={"tokens": ["the"], "model": name}, timeout=30)
    return NAMES[-1] not in set().union(*opened())
