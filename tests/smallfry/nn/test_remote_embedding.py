import copy
import json
import pickle

import numpy as np
import pytest
import torch

from smallfry import store
from smallfry.client import ClientError
from smallfry.errors import InputError, OutOfVocabularyError
from smallfry.nn import QuantEmbedding, RemoteEmbedding
from tests.helpers.scripted_server import DIM, ScriptedServer, response, rows
from tests.helpers.servers import TOKENS, Server, write_sfq


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": write_sfq(folder / "small.sfq"),
        "wide": write_sfq(folder / "wide.sfq", 500, 300, 3, "trellis", seed=1),
    }


@pytest.fixture(scope="module")
def server(paths):
    running = Server(*paths.values(), forked=True)
    yield running
    running.stop()


@pytest.fixture(params=["server", "file"])
def url(request, paths):
    if request.param == "file":
        return f"file://{paths['wide']}"
    return request.getfixturevalue("server").address


@pytest.fixture
def embedding(url):
    module = RemoteEmbedding(url, "wide")
    yield module
    module.close()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_of_any_shape_give_the_rows_of_the_file(embedding, paths, dtype):
    ids = torch.randint(0, 500, (3, 4, 5), dtype=dtype)
    assert torch.equal(embedding(ids), QuantEmbedding.from_sfq(paths["wide"])(ids))


def test_tokens_give_the_rows_of_the_file(embedding, paths):
    tokens = [*TOKENS, "the", "no such token"]
    vectors, _ = store.open(paths["wide"]).lookup(tokens)
    assert np.array_equal(embedding(tokens).numpy(), vectors)
    assert torch.equal(embedding([tokens, tokens]), torch.from_numpy(np.stack([vectors, vectors])))


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty_input_returns_no_rows(embedding, shape):
    assert embedding(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, 300)
    assert embedding([[]] * shape[0] if len(shape) == 2 else []).shape == (*shape, 300)


def test_description_is_that_of_the_server(embedding, paths):
    assert (embedding.num_embeddings, embedding.embedding_dim, embedding.nbit) == (500, 300, 3)
    assert embedding.digest == store.open(paths["wide"]).digest
    assert repr(embedding).endswith("'wide', 500, 300, nbit=3)")


def test_module_dtype_is_the_output_dtype(embedding):
    half = copy.deepcopy(embedding).to(torch.bfloat16)
    ids = torch.tensor([3])
    assert torch.equal(half(ids), embedding(ids).bfloat16())
    assert half(["the"]).dtype == torch.bfloat16
    half.close()


@pytest.mark.parametrize("bad", [-1, 500, 2**40])
def test_id_out_of_range_is_an_index_error(embedding, bad):
    with pytest.raises(IndexError, match=f"id {bad} is out of range for a table of 500 rows"):
        embedding(torch.tensor([0, bad]))


def test_float_ids_are_rejected(embedding):
    with pytest.raises(TypeError, match=r"torch\.float32, expected"):
        embedding(torch.zeros(1))


def test_unknown_tokens_are_an_error_on_request(url):
    module = RemoteEmbedding(url, "wide", oov="error")
    with pytest.raises(OutOfVocabularyError, match="no such token"):
        module(["the", "no such token"])
    module.close()


def test_lists_of_different_lengths_are_rejected(embedding):
    with pytest.raises(InputError, match="have 1 to 2 tokens, expected equal lengths"):
        embedding([["the"], ["cat", "sat"]])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_connect_for_themselves(embedding, twin):
    made = twin(embedding)
    assert torch.equal(made(torch.tensor([7])), embedding(torch.tensor([7])))
    made.close()


def test_module_holds_nothing_to_save(embedding):
    assert (list(embedding.parameters()), embedding.state_dict()) == ([], {})


def test_duplicates_travel_once(server, monkeypatch):
    module = RemoteEmbedding(server.address, "wide")
    sent = []
    send = module._client._send
    monkeypatch.setattr(module._client, "_send", lambda request: (sent.append(request), send(request))[1])
    module(torch.full((1000,), 3))
    module(["the"] * 1000)
    assert [len(request.body) for request in sent] == [4, len(b'{"tokens":["the"],"model":"wide"}')]
    module.close()


def test_model_has_to_be_named_where_there_are_several(server):
    with pytest.raises(InputError, match=r"has 2 models, small, wide\. Please name one"):
        RemoteEmbedding(server.address)
    with pytest.raises(InputError, match="has no model 'other'; it has small, wide"):
        RemoteEmbedding(server.address, "other")


def test_server_that_is_not_there_is_a_client_error(tmp_path):
    with pytest.raises(ClientError):
        RemoteEmbedding(f"unix://{tmp_path}/none.sock", retries=0)


def test_compiled_model_breaks_the_graph_and_returns_the_same(embedding):
    compiled = torch.compile(lambda ids: embedding(ids) * 2, backend="eager")
    assert torch.equal(compiled(torch.tensor([1, 2])), embedding(torch.tensor([1, 2])) * 2)


INFO = {
    "rows": 9,
    "nbit": 2,
    "digest": "d",
    "has_vocabulary": True,
    "has_tokenizer": False,
    "bytes": {},
    "metadata": {},
}


def test_rows_of_another_dim_are_an_error():
    body = json.dumps({"models": [{"name": "m", "dim": DIM + 1, **INFO}]}).encode()
    with ScriptedServer(response(body), rows(1.0)) as server:
        module = RemoteEmbedding(server.url)
        with pytest.raises(ClientError, match=f"'m' have {DIM} values, expected {DIM + 1}"):
            module(["a"])
        module.close()


def test_names_of_models_are_shortened_and_escaped():
    models = [{"name": f"\x1b{i}" * 100, "dim": 2, **INFO} for i in range(100)]
    with (
        ScriptedServer(response(json.dumps({"models": models}).encode())) as server,
        pytest.raises(InputError, match="has 100 models") as caught,
    ):
        RemoteEmbedding(server.url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 5000
