"""Both clients get the same results over TCP, over a Unix socket, and from the file itself."""

import threading

import numpy as np
import pytest

import smallfry
from smallfry import OutOfVocabularyError
from smallfry.client import AsyncClient, Client, TooLarge, Unauthorized, UnknownModel, Unprocessable
from smallfry.errors import InputError
from tests.helpers.servers import TOKENS, Server

FORMATS = ("packed", "safetensors", "json")
ASKED = [*TOKENS, "no such token", "", "\ud800", "the", "the"]
BAGS = [["the", "cat"], [], ["no such token"], ["mat", "no such token", "mat"], ("<pad>",)]


def same(result, expected):
    assert result.vectors.dtype == expected.vectors.dtype
    assert result.vectors.tobytes() == expected.vectors.tobytes()
    assert result.found.tolist() == expected.found.tolist()
    assert result.model == expected.model
    assert result.digest == expected.digest
    if expected.offsets is None:
        assert result.offsets is None
    else:
        assert result.offsets.tolist() == expected.offsets.tolist()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("model", ["small", "wide", "deep"])
def test_server_and_file_give_the_same_result(connect, server, files, format, model):
    remote = connect(server.address, model=model, format=format)
    local = connect(f"file://{files[model]}")
    for options in ({}, {"oov": "mean"}, {"dtype": "float16"}):
        same(remote.lookup(ASKED, **options), local.lookup(ASKED, **options))
    for options in ({}, {"pool": "mean"}, {"pool": "sum", "oov": "mean"}, {"pool": "mean", "oov": "skip"}):
        same(remote.lookup(BAGS, **options), local.lookup(BAGS, **options))


@pytest.mark.parametrize("model", ["wide", "deep"])
def test_a_lookup_is_what_the_store_holds(connect, server, files, model):
    tokens = [f"token-{row}" for row in range(12, 300)]
    with smallfry.open(files[model]) as store:
        vectors, found = store.lookup(tokens)
        digest = store.digest
    result = connect(server.address, model=model).lookup(tokens)
    assert result.vectors.tobytes() == vectors.tobytes()
    assert result.found.tolist() == found.tolist()
    assert result.offsets is None
    assert result.digest == digest


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_pools_are_those_of_the_server(connect, server, pool):
    query = {"model": "wide", "tokens": BAGS, "pool": pool, "oov": "mean"}
    expected = server.lookup(query, accept="application/octet-stream").content
    result = connect(server.address, model="wide").lookup(BAGS, pool=pool, oov="mean")
    assert result.vectors.tobytes() == expected
    assert result.found.tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("format", FORMATS)
def test_rows_come_by_number(connect, server, files, format):
    ids = np.random.default_rng(0).integers(0, 2000, 500)
    with smallfry.open(files["wide"]) as store:
        expected = store.rows(ids)
    rows = connect(server.address, model="wide", format=format).rows(ids)
    assert rows.tobytes() == expected.tobytes()
    assert connect(f"file://{files['wide']}").rows(ids).tobytes() == expected.tobytes()


@pytest.mark.parametrize("distinct", [False, True])
def test_repeated_tokens_and_ids_come_back_in_their_order(connect, server, files, distinct):
    client = connect(server.address, model="wide", distinct=distinct)
    local = connect(f"file://{files['wide']}")
    tokens = [f"token-{row % 17}" for row in range(300)] + ["unknown", "unknown"]
    ids = [row % 13 for row in range(300)]
    for oov in ("zero", "mean"):
        same(client.lookup(tokens, oov=oov), local.lookup(tokens, oov=oov))
    assert client.rows(ids).tobytes() == local.rows(ids).tobytes()


def test_a_long_lookup_is_split_as_the_server_needs(connect, server, files):
    client = connect(server.address, model="wide")
    local = connect(f"file://{files['wide']}")
    tokens = [f"token-{row}" for row in range(3500)]
    same(client.lookup(tokens), local.lookup(tokens))
    assert client.rows(np.arange(2000)).tobytes() == local.rows(np.arange(2000)).tobytes()


def test_an_empty_lookup_has_no_rows(connect, server, files):
    for client in (connect(server.address, model="small"), connect(f"file://{files['small']}")):
        assert client.lookup([]).vectors.shape == (0, 7)
        assert client.lookup([], pool="mean").vectors.shape == (0, 7)
        assert client.rows([]).shape == (0, 7)


def test_oov_error_names_all_unknown_tokens(connect, server, files):
    for client in (connect(server.address, model="small"), connect(f"file://{files['small']}")):
        with pytest.raises(OutOfVocabularyError) as caught:
            client.lookup(["dog", "the", "bird", "dog"], oov="error")
        assert caught.value.tokens == ["dog", "bird"]
        assert client.lookup(["the"], oov="error").found.tolist() == [True]


def test_unknown_model_is_named_with_the_available_ones(connect, server, files):
    for client in (connect(server.address), connect(f"file://{files['small']}")):
        with pytest.raises(UnknownModel, match=r"'glove'.*'small'") as caught:
            client.lookup(["the"], model="glove")
        assert caught.value.status == 404


def test_row_id_out_of_range_is_rejected(connect, server, files):
    for client in (connect(server.address, model="small"), connect(f"file://{files['small']}")):
        with pytest.raises(Unprocessable, match="12"):
            client.rows([12])


@pytest.mark.parametrize("ids", [[-1], [1 << 32], [0.5], [[1]], ["a"]])
def test_invalid_row_ids_are_rejected(connect, files, ids):
    with pytest.raises(InputError, match="ids"):
        connect(f"file://{files['small']}").rows(ids)


@pytest.mark.parametrize(
    ("tokens", "options", "error"),
    [
        ("the", {}, TypeError),
        (["the", 3], {}, TypeError),
        ([["the"], "cat"], {}, TypeError),
        (["the", ["cat"]], {}, TypeError),
        (["the"], {"pool": "mean"}, InputError),
        ([["the"]], {"pool": "max"}, InputError),
        (["the"], {"oov": "skip"}, InputError),
        (["the"], {"oov": "nothing"}, InputError),
        (["the"], {"dtype": "int8"}, InputError),
    ],
)
def test_invalid_lookup_is_rejected_before_it_is_sent(connect, tokens, options, error):
    with pytest.raises(error):
        connect("http://127.0.0.1:1").lookup(tokens, **options)


def test_the_list_of_models_is_that_of_the_server(connect, server, files):
    remote = {model.name: model for model in connect(server.address).models()}
    assert sorted(remote) == ["deep", "small", "wide"]
    for name, path in files.items():
        assert connect(f"file://{path}").models() == [remote[name]]
    assert (remote["wide"].rows, remote["wide"].dim, remote["wide"].nbit) == (2000, 300, 2)


def test_stats_have_the_bytes_by_part(connect, server, files):
    remote = {model["name"]: model for model in connect(server.address).stats()["models"]}
    (local,) = connect(f"file://{files['wide']}").stats()["models"]
    assert remote["wide"]["bytes"] == local["bytes"]
    assert remote["wide"].items() >= local.items()


def test_results_are_writeable(connect, server, files):
    for url in (server.address, f"file://{files['wide']}"):
        for format in FORMATS:
            client = connect(url, model="wide", format=format)
            assert client.lookup(["the"]).vectors.flags.writeable
            assert client.rows([0, 1]).flags.writeable


def test_threads_share_a_client(servers, files):
    with smallfry.open(files["wide"]) as store:
        expected = [store.lookup([f"token-{row}"])[0].tobytes() for row in range(12, 112)]
    wrong = []
    with Client(servers["http"].address, model="wide") as client:

        def ask(start):
            for row in range(start, 112, 4):
                if client.lookup([f"token-{row}"]).vectors.tobytes() != expected[row - 12]:
                    wrong.append(row)

        threads = [threading.Thread(target=ask, args=(12 + i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_token_larger_than_the_body_limit_is_an_error(connect, server):
    client = connect(server.address, model="wide")
    with pytest.raises(TooLarge):
        client.lookup(["x" * (9 << 20)])


def test_context_managers_close(servers, files):
    with Client(servers["http"].address, model="small") as client:
        assert client.lookup(["the"]).found.all()
    with Client(f"file://{files['small']}") as client:
        assert client.lookup(["the"]).found.all()
    with pytest.raises(smallfry.SmallfryError):
        client.lookup(["the"])


def test_async_client_works_in_consecutive_event_loops(servers):
    import asyncio

    client = AsyncClient(servers["http"].address, model="small")

    async def ask():
        results = await asyncio.gather(*[client.lookup(["the"]) for _ in range(50)])
        await client.close()
        return results

    for _ in range(2):
        assert all(result.found.all() for result in asyncio.run(ask()))


def test_api_key_is_sent_and_required(connect, files, tmp_path):
    (tmp_path / "keys").write_text("correct\n")
    keys = str(tmp_path / "keys")
    server = Server(files["small"], "--api-keys-file", keys, "--uds", str(tmp_path / "s"), forked=True)
    try:
        assert connect(server.address, api_key="correct").lookup(["the"]).found.all()
        for key in ("wrong", None):
            with pytest.raises(Unauthorized):
                connect(server.address, api_key=key).lookup(["the"])
    finally:
        server.stop()
