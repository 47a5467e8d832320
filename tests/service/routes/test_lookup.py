"""``POST /lookup``."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors

import smallfry
import smallfry.sfq.file
from smallfry.compress import quantize
from smallfry.table import Table
from tests.helpers.servers import TOKENS, write_sfq
from tests.helpers.tables import DIMS, KINDS, PARTS, plain_decode, random_table

CODINGS = [(kind, nbit) for nbit, kinds in KINDS.items() for kind in kinds]
ASKED = ["cat", "no such token", "<pad>", "🎉", "cat", "nul\0byte", "with space"]
PACKED = "application/vnd.smallfry.packed"
SAFETENSORS = "application/vnd.safetensors"
RAW = "application/octet-stream"


def decode_json(response):
    body = response.json()
    return np.array(body["vectors"], np.float32).reshape(-1, body["dim"])


def decode_raw(response):
    shape = [int(size) for size in response.headers["x-smallfry-shape"].split(",")]
    return np.frombuffer(response.content, response.headers["x-smallfry-dtype"]).reshape(shape)


def decode_safetensors(response):
    return load_safetensors(response.content)["vectors"]


def decode_packed(response):
    """Decode by the documented rule alone: the body's own tensors, as a table."""
    length = int.from_bytes(response.content[:8], "little")
    metadata = json.loads(response.content[8 : 8 + length])["__metadata__"]
    tensors = load_safetensors(response.content)
    table = Table(
        tensors["codes"],
        dim=int(metadata["dim"]),
        nbit=int(metadata["nbit"]),
        codebook_kind=metadata["codebook_kind"],
        codebook=tensors.get("codebook"),
        clip=float(metadata["clip"]),
        mean=tensors.get("mean"),
        column_scale=tensors.get("column_scale"),
        row_scale=tensors.get("row_scale"),
        zero_rows=tensors.get("zero_rows", np.empty(0, np.uint32)),
    )
    vectors = table.decode()
    if "fill" in tensors:
        vectors[~tensors["found"]] = tensors["fill"]
    return vectors.astype(metadata["dtype"])


FORMATS = {
    "application/json": decode_json,
    RAW: decode_raw,
    SAFETENSORS: decode_safetensors,
    PACKED: decode_packed,
}


def test_vectors_are_in_the_order_of_the_request(server, files):
    response = server.lookup({"tokens": ASKED})
    vectors, found = smallfry.open(files["small"]).lookup(ASKED)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    np.testing.assert_array_equal(decode_json(response), vectors)
    assert response.json()["found"] == found.tolist()
    assert response.json()["model"] == "small" and response.json()["dim"] == 7


@pytest.mark.parametrize("path", ["/lookup", "/v1/lookup"])
def test_lookup_has_two_paths(server, path):
    assert server.client.post(path, json={"tokens": ["the"]}).json()["found"] == [True]


@pytest.fixture(scope="session")
def every_width(start, tmp_path_factory):
    """One server over a file for each kind of codes, number of bits and dimensions."""
    folder = tmp_path_factory.mktemp("widths")
    paths = {}
    for (kind, nbit), dim in product(CODINGS, DIMS):
        name = f"{kind}{nbit}x{dim}"
        paths[name] = write_sfq(folder / f"{name}.sfq", 40, dim, nbit, kind)
    return start(folder), paths


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("kind", "nbit"), CODINGS)
def test_equals_the_store_and_a_decode_with_plain_numpy_bit_for_bit(every_width, kind, nbit, dim):
    server, paths = every_width
    name = f"{kind}{nbit}x{dim}"
    decoded = plain_decode(smallfry.sfq.file.map(paths[name]).table)
    expected = np.vstack(
        [decoded[TOKENS.index(t)] if t in TOKENS else np.zeros_like(decoded[0]) for t in ASKED]
    )
    bits = expected.astype(np.float32).tobytes()
    assert smallfry.open(paths[name]).lookup(ASKED)[0].tobytes() == bits
    for accept, decode in FORMATS.items():
        assert decode(server.lookup({"tokens": ASKED, "model": name}, accept=accept)).tobytes() == bits


def test_all_formats_of_a_paged_table_give_the_bits_of_its_rows(start, tmp_path):
    folder = tmp_path / "paged"
    folder.mkdir()
    tables = {
        f"{kind}{nbit}": random_table(200, 37, nbit, kind, parts=PARTS)
        for kind, nbit in CODINGS
        if kind != "float"
    }
    for name, table in tables.items():
        smallfry.sfq.file.write(folder / f"{name}.sfq", table.paged())
    server, ids = start(folder), [0, 199, 7, 7, *range(100, 150)]
    for name, table in tables.items():
        expected = plain_decode(table)[ids]
        for (accept, decode), dtype in product(FORMATS.items(), ("float32", "float16")):
            response = server.lookup({"ids": ids, "model": name, "dtype": dtype}, accept=accept)
            assert decode(response).astype(dtype).tobytes() == expected.astype(dtype).tobytes(), (
                name,
                accept,
            )


@pytest.mark.parametrize("dim", [7, 300])
@pytest.mark.parametrize(("kind", "nbit"), CODINGS)
def test_packed_response_takes_no_more_bytes_than_the_vectors(every_width, kind, nbit, dim):
    server, _ = every_width
    sizes = []
    for count in (1, 10, 100, 1000):
        query = {"ids": [0] * count, "model": f"{kind}{nbit}x{dim}"}
        tensors = [load_safetensors(server.lookup(query, accept=a).content) for a in (PACKED, SAFETENSORS)]
        sizes.append([sum(tensor.nbytes for tensor in each.values()) for each in tensors])
        zeros = tensors[0].get("zero_rows", np.empty(0)).nbytes
        assert sizes[-1][0] - zeros <= sizes[-1][1]
    assert sizes[-1][0] < sizes[-1][1] or nbit >= 16


@pytest.mark.parametrize("model", ["small", "large"])
@pytest.mark.parametrize("query", [{"tokens": ASKED}, {"tokens": ASKED, "oov": "mean"}, {"tokens": ["cat"]}])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_formats_give_the_same_bits(several, model, query, dtype):
    results = []
    for accept, decode in FORMATS.items():
        response = several.lookup(query | {"model": model, "dtype": dtype}, accept=accept)
        assert response.headers["content-type"] == accept
        results.append(decode(response).astype(np.float32))
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


def test_each_row_is_the_same_at_every_place_of_a_batch(several):
    tokens = [f"token-{row}" for row in range(12, 2000)]
    order = np.random.default_rng(0).permutation(len(tokens))
    results = [
        decode_raw(several.lookup({"tokens": asked, "model": "large"}, accept=RAW))
        for asked in (tokens, [tokens[i] for i in order])
    ]
    assert results[0][order].tobytes() == results[1].tobytes()


def test_large_json_responses_are_streamed_completely(several, files):
    ids = list(range(5000))
    response = several.lookup({"ids": ids, "model": "large"})
    assert response.headers["transfer-encoding"] == "chunked"
    np.testing.assert_array_equal(decode_json(response), smallfry.open(files["large"]).rows(ids))


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("query", [{"tokens": []}, {"ids": []}])
def test_empty_request_has_an_empty_response(server, accept, query):
    vectors = FORMATS[accept](server.lookup(query, accept=accept))
    assert vectors.shape == (0, 7)


def test_ids_are_row_numbers(server, files):
    response = server.lookup({"ids": [3, 0, 11]})
    np.testing.assert_array_equal(decode_json(response), smallfry.open(files["small"]).rows([3, 0, 11]))
    assert response.json()["found"] == [True, True, True]


def test_raw_ids_name_their_model_in_the_query(several, files):
    response = several.client.post(
        "/lookup?model=ids",
        content=np.array([49, 0, 7], "<u4").tobytes(),
        headers={"content-type": RAW, "accept": RAW},
    )
    np.testing.assert_array_equal(decode_raw(response), smallfry.open(files["ids"]).rows([49, 0, 7]))


def test_unknown_field_in_the_query_is_an_error(server):
    response = server.client.post("/lookup?dtyp=float16", content=b"", headers={"content-type": RAW})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "dtyp")


@pytest.mark.parametrize("accept", ["application/json", SAFETENSORS, PACKED])
def test_nested_tokens_give_flat_rows_and_offsets(server, accept):
    response = server.lookup({"tokens": [["the", "cat"], [], ["mat"]]}, accept=accept)
    flat = server.lookup({"tokens": ["the", "cat", "mat"]})
    assert FORMATS[accept](response).tobytes() == decode_json(flat).tobytes()
    if accept == "application/json":
        assert response.json()["offsets"] == [0, 2, 2, 3]
    else:
        assert load_safetensors(response.content)["offsets"].tolist() == [0, 2, 2, 3]


def test_ids_may_be_nested(server):
    assert server.lookup({"ids": [[1], [2, 3]]}).json()["offsets"] == [0, 1, 3]


@pytest.mark.parametrize("pool", ["mean", "sum"])
@pytest.mark.parametrize("oov", ["zero", "mean", "skip"])
def test_pools_each_inner_list(several, files, pool, oov):
    bags = [["token-13", "token-20", "?", "token-14"], [], ["?"], ["cat"]]
    response = several.lookup({"tokens": bags, "pool": pool, "oov": oov, "model": "large"})
    store = smallfry.open(files["large"])
    expected = np.zeros((len(bags), 300))
    for row, bag in enumerate(bags):
        known = [token for token in bag if token in store] if oov == "skip" else bag
        vectors, _ = store.lookup(known, oov="mean" if oov == "mean" else "zero")
        expected[row] = vectors.sum(axis=0)
        if pool == "mean":
            expected[row] /= max(len(known), 1)
    np.testing.assert_allclose(decode_json(response), expected, rtol=1e-5, atol=1e-6)
    assert response.json()["found"] == [True, False, False, True]
    assert response.json()["offsets"] == [0, 4, 4, 5, 6]


def test_a_pool_does_not_depend_on_its_neighbors(several):
    bag = [f"token-{row}" for row in range(20, 120)]
    alone = several.lookup({"tokens": [bag], "pool": "mean", "model": "large"}, accept=RAW)
    among = several.lookup({"tokens": [["cat"], bag, bag[:3]], "pool": "mean", "model": "large"}, accept=RAW)
    assert decode_raw(among)[1].tobytes() == decode_raw(alone)[0].tobytes()


def test_a_list_pools_a_limited_number_of_values(start, tmp_path):
    server = start(write_sfq(tmp_path / "wide.sfq", 50, 20_000, 1))
    most = (1 << 25) // 20_000
    assert server.lookup({"ids": [[1] * most, [2] * most], "pool": "sum"}).status_code == 200
    response = server.lookup({"ids": [[2], [1] * (most + 1)], "pool": "sum"})
    assert response.status_code == 413
    assert f"ids[1] pools {most + 1} vectors of 20000 values; this server pools {most}" in response.text
    assert server.lookup({"ids": [[2], [1] * (most + 1)]}).status_code == 200
    texts = ["a", "a " * (most + 1)]
    response = server.client.post("/v1/embeddings", json={"model": "wide", "input": texts})
    assert response.status_code == 413
    assert "input[1] pools" in response.text


def test_pools_are_not_packed(server):
    query = {"tokens": [["the"]], "pool": "mean"}
    assert server.lookup(query, accept=PACKED).status_code == 406
    response = server.lookup(query, accept=f"{PACKED}, {SAFETENSORS};q=0.5")
    assert response.headers["content-type"] == SAFETENSORS


def test_unknown_tokens_can_be_an_error(server):
    response = server.lookup({"tokens": ["the", "wug", "wug", "blick"], "oov": "error"})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "unknown_token"
    assert "'wug', 'blick'" in response.json()["error"]["message"]


def test_unknown_tokens_can_get_the_mean_row(server, files):
    mean = smallfry.open(files["small"]).rows(range(len(TOKENS))).mean(axis=0, dtype=np.float64)
    response = server.lookup({"tokens": ["wug", "<pad>"], "oov": "mean"})
    np.testing.assert_allclose(decode_json(response), [mean, np.zeros(7)], rtol=1e-6)


def test_a_lone_surrogate_is_an_unknown_token(server):
    body = b'{"tokens": ["cat", "\\ud800", "\\udc00x"]}'
    response = server.client.post("/lookup", content=body, headers={"content-type": "application/json"})
    assert response.json()["found"] == [True, False, False]


@pytest.mark.parametrize("accept", FORMATS)
def test_every_response_carries_the_digest(server, files, accept):
    response = server.lookup({"tokens": ["the"]}, accept=accept)
    assert response.headers["x-smallfry-digest"] == smallfry.open(files["small"]).digest
    assert response.headers["vary"].lower() == "accept"


def test_table_without_vocabulary_takes_only_ids(several):
    assert several.lookup({"ids": [0], "model": "ids"}).status_code == 200
    refused = several.lookup({"tokens": ["the"], "model": "ids"})
    assert refused.status_code == 422
    assert "no vocabulary" in refused.json()["error"]["message"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Return tables whose responses may be large, by their bits per value."""
    folder = tmp_path_factory.mktemp("tables")
    return {nbit: write_sfq(folder / f"{nbit}.sfq", 3000, 301, nbit) for nbit in (2, 16, 32)}


@pytest.fixture(scope="module")
def large(tables, start):
    """One server over them."""
    return start(*tables.values())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("nbit", [2, 16, 32])
def test_large_response_is_streamed_in_pieces(large, tables, nbit, dtype):
    model, table = str(nbit), smallfry.open(tables[nbit]).table
    ids = np.random.default_rng(0).integers(0, 3000, 5000)
    expected = table.decode(ids).astype(dtype)
    query = {"ids": ids.tolist(), "dtype": dtype, "model": model}
    for accept, decode in FORMATS.items():
        response = large.lookup(query, accept=accept)
        decoded = decode(response).astype(dtype)
        assert decoded.tobytes() == expected.tobytes(), accept
    lists = {"ids": [ids[:10].tolist(), ids[10:].tolist()], "model": model}
    nested = large.lookup(lists, accept=SAFETENSORS)
    assert load_safetensors(nested.content)["offsets"].tolist() == [0, 10, 5000]
    assert decode_safetensors(nested).tobytes() == table.decode(ids).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "options", [{"pool": "mean"}, {"pool": "sum", "oov": "mean"}, {"pool": "mean", "oov": "skip"}]
)
def test_many_bags_are_pooled_as_few_are(large, options, dtype):
    draw = np.random.default_rng(0)
    bags = [[f"token-{row}" for row in draw.integers(0, 4000, draw.integers(0, 4))] for _ in range(2000)]
    query = {"pool": "mean", "dtype": dtype, "model": "2"} | options
    parts = [large.lookup({"tokens": bags[i : i + 50]} | query).json() for i in range(0, len(bags), 50)]
    vectors = np.array([row for part in parts for row in part["vectors"]], dtype)
    found = [each for part in parts for each in part["found"]]
    for accept in FORMATS.keys() - {PACKED}:
        response = large.lookup({"tokens": bags} | query, accept=accept)
        assert FORMATS[accept](response).astype(dtype).tobytes() == vectors.tobytes(), accept
    response = large.lookup({"tokens": bags} | query, accept=SAFETENSORS)
    assert load_safetensors(response.content)["found"].tolist() == found


def write_constant(path, value):
    """Write a table of 3,000 rows, alternately of the value and its negative."""
    matrix = np.full((3000, 300), value, np.float32)
    matrix[::2] *= -1
    smallfry.sfq.file.write(path, quantize(matrix, 4), None)
    return path


def test_a_sum_beyond_float16_among_many_is_rejected(start, tmp_path):
    server = start(write_constant(tmp_path / "huge.sfq", 3000))
    bags = [[0]] * 2000
    query = {"pool": "sum", "dtype": "float16"}
    assert server.lookup({"ids": [*bags, [0] * 20]} | query, accept=RAW).status_code == 200
    response = server.lookup({"ids": [*bags, [0] * 30]} | query, accept=RAW)
    assert response.status_code == 422
    assert "float16 only 65504" in response.json()["error"]["message"]


@pytest.mark.parametrize("scaled", [False, True])
def test_values_beyond_float16_are_rejected(start, tmp_path, scaled):
    path = write_constant(tmp_path / "huge.sfq", 70000)
    if scaled:
        table = replace(random_table(3000, 300, 2, "trellis"), column_scale=np.full(300, 7e4, np.float32))
        smallfry.sfq.file.write(path, table)
    server = start(path)
    response = server.lookup({"ids": list(range(3000)), "dtype": "float16"}, accept=RAW)
    assert response.status_code == 422
    assert "float16 only 65504" in response.json()["error"]["message"]
