"""A lying server: the right result or the caller's error, in bounded time and memory, for every lie."""

import re
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from smallfry.client import Client, ClientError, Lookup
from smallfry.client.transport.connection import Pool
from smallfry.client.transport.messages import Response
from smallfry.download import MirrorError, fetch
from smallfry.errors import InputError
from smallfry.media_types import JSON, PACKED
from smallfry.nn import RemoteEmbedding
from tests.attacks.lies import ENDLESS, Liar, lies, raw
from tests.helpers.clients import CLIENTS
from tests.helpers.scripted_server import response
from tests.helpers.servers import TOKENS, write_sfq

ROWS, DIM = 300, 24
FEW = ["the", "no-such-word"]
MANY = [*TOKENS, *(f"token-{row}" for row in range(len(TOKENS), 100)), "no-such-word"]
TIMEOUT = 0.5
LONGEST_MESSAGE = 2000
MEMORY = 96 << 20
VALUES = re.compile("data byte|body (vectors|found)/")
"""Fields that a server may fill as it likes: nothing else says what the values are."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_sfq(tmp_path_factory.mktemp("models") / "words.sfq", ROWS, DIM, 3, "trellis")


@pytest.fixture(scope="module")
def address(start, path):
    return start(path).address


@pytest.fixture(scope="module")
def liar():
    with Liar() as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("smallfry.download._TIMEOUT", TIMEOUT)
    monkeypatch.setattr("smallfry.client.remote.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("smallfry.client.remote.LONGEST_PAUSE", 0.0)


def looked_up(tokens: list[str], **options: object) -> Callable[[str, Path, type], object]:
    def use(url: str, folder: Path, kind: type) -> object:
        client = kind(url, model="words", retries=0, timeout=TIMEOUT, **options)
        try:
            return client.lookup(tokens)
        finally:
            client.close()

    return use


def by_number(url: str, folder: Path, kind: type) -> object:
    client = kind(url, retries=0, timeout=TIMEOUT)
    try:
        return client.rows([1, 2])
    finally:
        client.close()


def described(method: str) -> Callable[[str, Path, type], object]:
    def use(url: str, folder: Path, kind: type) -> object:
        client = kind(url, retries=0, timeout=TIMEOUT)
        try:
            return repr(getattr(client, method)())
        finally:
            client.close()

    return use


def embedded(url: str, folder: Path, kind: type) -> object:
    module = RemoteEmbedding(url, "words", retries=0, timeout=TIMEOUT, cache_bytes=1 << 20)
    try:
        return module(MANY)
    finally:
        module.close()


def mirrored(url: str, folder: Path, kind: type) -> object:
    return fetch([f"{url}/models/words"], folder).read_bytes()


USES = {
    "packed": looked_up(MANY),
    "packed, few": looked_up(FEW),
    "safetensors": looked_up(FEW, format="safetensors"),
    "json": looked_up(FEW, format="json"),
    "rows": by_number,
    "models": described("models"),
    "stats": described("stats"),
    "embedding": embedded,
    "mirror": mirrored,
}
#: A use, a client, and a step: 1 tells every lie, 5 every fifth. Each form of response gets every lie once.
CASES = [
    *((use, "sync", 1) for use in ("packed", "safetensors", "json", "models", "stats")),
    *((use, "sync", 5) for use in ("packed, few", "rows", "embedding", "mirror")),
    *((use, "async", 5) for use in ("packed", "json", "models")),
]
ERRORS = {"mirror": MirrorError, "embedding": (ClientError, InputError)}


def record(use: str, address: str, folder: Path) -> tuple[object, dict[str, Response]]:
    """Return the result with an honest server, and the last response to each path."""
    responses: dict[str, Response] = {}
    send = Pool.send

    def keep(pool: Pool, data: bytes, limit: int) -> Response:
        answer = send(pool, data, limit)
        responses[data.split(b" ", 2)[1].partition(b"?")[0].decode()] = answer
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "send", keep)
        result = USES[use](address, folder, Client)
    return result, responses


def same(result: object, expected: object) -> bool:
    if isinstance(expected, Lookup):
        return same(result.vectors, expected.vectors) and same(result.found, expected.found)
    if isinstance(expected, np.ndarray):
        return result.tobytes() == expected.tobytes()
    if isinstance(expected, torch.Tensor):
        return torch.equal(result, expected)
    return result == expected


def plausible(result: object, expected: object) -> bool:
    """Whether a result has the form of the right one: a server may lie about values."""
    if isinstance(expected, Lookup):
        return plausible(result.vectors, expected.vectors) and plausible(result.found, expected.found)
    if isinstance(expected, np.ndarray):
        return (
            result.dtype == expected.dtype
            and len(result) == len(expected)
            and bool(np.isfinite(result).all())
        )
    return isinstance(result, type(expected))


def outcome(use: str, kind: str, url: str, folder: Path) -> object:
    """Return the result, or None after an error of the right class and form."""
    try:
        return USES[use](url, folder, CLIENTS[kind])
    except ERRORS.get(use, ClientError) as error:
        assert str(error).isprintable() and len(str(error)) < LONGEST_MESSAGE
        return None


@pytest.mark.parametrize(("use", "kind", "step"), CASES)
def test_a_lie_is_an_error_or_changes_nothing_but_values(use, kind, step, address, liar, tmp_path):
    expected, responses = record(use, address, tmp_path / "recorded")
    answers = {target: raw(right) for target, right in responses.items()}
    liar.answers = dict(answers)
    assert same(outcome(use, kind, liar.url, tmp_path / "replayed"), expected)
    wrong = []
    for target, right in responses.items():
        for i, lie in enumerate(islice(lies(right), None, None, step)):
            liar.answers = {**answers, target: lie.answer}
            result = outcome(use, kind, liar.url, tmp_path / str(i))
            if result is not None and not same(result, expected):
                about_values = use in ("models", "stats") or VALUES.match(lie.field)
                if not (about_values and plausible(result, expected)):
                    wrong.append(lie.field)
    assert wrong == []


def measured(call: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds that a call takes, and the most bytes allocated meanwhile."""
    tracemalloc.start()
    begin = monotonic()
    try:
        call()
        return monotonic() - begin, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pace", ENDLESS)
@pytest.mark.parametrize(
    ("use", "kind"), [("json", "sync"), ("json", "async"), ("stats", "sync"), ("mirror", "sync")]
)
def test_a_response_without_an_end_is_an_error_in_time(use, kind, pace, liar, tmp_path):
    liar.answers = dict.fromkeys(("/v1/lookup", "/stats", "/models/words"), ENDLESS[pace])
    seconds, nbytes = measured(lambda: outcome(use, kind, liar.url, tmp_path))
    assert seconds < 6 * TIMEOUT
    assert nbytes < MEMORY


def packed(dim: int, nbit: int, count: int, kind: str = "exact") -> bytes:
    stride = -(-dim * nbit // 8)
    tensors = {
        "codebook": np.ones(2**16 if kind == "trellis" else 2**nbit, np.float32),
        "codes": np.zeros((count, stride), np.uint8),
        "found": np.ones(count, np.bool_),
    }
    metadata = {
        "model": "words",
        "digest": "d",
        "dim": str(dim),
        "nbit": str(nbit),
        "codebook_kind": kind,
        "clip": "1",
    }
    return save(tensors, metadata)


BOMBS = {
    "stats": (
        *(b"[" + b"{}," * (1 << 20), b'{"a":[' + b'{"":0},' * 600_000 + b"0]}", b"[" * (1 << 22)),
        *(b'{"a":[' + b"1e1," * 1_000_000 + b"0]}", b'{"a":[' + b'"ab",' * 800_000 + b"0]}"),
        b"{" + b",".join(b'"%x":0' % i for i in range(450_000)) + b"}",
    ),
    "json": (
        b'{"model":"words","dim":1,"found":[true,true],"vectors":[' + b"[]," * (1 << 20) + b"[0]]}",
        b'{"model":"words","dim":1,"found":[true,true],"vectors":[[' + b"1e1," * 700_000 + b"0],[0]]}",
        b'{"model":"words","dim":1,"found":[true,true],"vectors":[["' + b'ab","' * 550_000 + b'"],[0]]}',
    ),
    "packed, few": (
        *(packed(1 << 22, 1, 2), packed(1 << 16, 1, 2), packed(1 << 16, 16, 2), bytes(1 << 24)),
        *(packed(1 << 16, 3, 2, "trellis"), packed(4, 3, 2, "trellis")),
    ),
}


@pytest.mark.parametrize(
    ("use", "number"), [(use, i) for use, bodies in BOMBS.items() for i in range(len(bodies))]
)
def test_a_body_that_grows_when_decoded_stays_within_bounds(use, number, liar, tmp_path):
    body = BOMBS[use][number]
    content_type = PACKED if use.startswith("packed") else JSON
    answer = response(body, content_type=content_type, X_Smallfry_Digest="d")
    liar.answers = dict.fromkeys(("/v1/lookup", "/stats"), answer)
    _, nbytes = measured(lambda: outcome(use, "sync", liar.url, tmp_path))
    assert nbytes < MEMORY
