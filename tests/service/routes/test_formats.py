"""JSON bodies of lookups: their text is that of orjson."""

from __future__ import annotations

from itertools import product

import numpy as np
import orjson
import pytest

import smallfry.sfq.file
from service.models.model import Model
from service.routes.formats import JSON_CHUNK, encode
from service.routes.result import LookupResult
from smallfry.media_types import JSON
from tests.helpers.tables import KINDS, PARTS, random_table

TABLES = {
    f"{kind}{nbit}{'+' * bool(parts)}{'-'.join(parts)}": (kind, nbit, parts)
    for nbit, kinds in KINDS.items()
    for kind, parts in product(kinds, [(), ("row_scale",), ("mean", "zero_rows"), PARTS])
}
IDS = np.array([0, 5, -1, 5, 39, -1, 1, *range(40)])
REPEATS = [1, 1 + 2 * JSON_CHUNK // IDS.size // 300]  # a small response, and a large one


@pytest.fixture(scope="module", params=TABLES)
def model(request, tmp_path_factory):
    kind, nbit, parts = TABLES[request.param]
    return open_model(random_table(40, 300, nbit, kind, parts=parts), tmp_path_factory.mktemp("formats"))


def open_model(table, folder):
    path = folder / "model.sfq"
    smallfry.sfq.file.write(path, table)
    return Model.open("model", path)


def result_of(model, ids=IDS, **fields):
    found = ids >= 0
    if "pool" in fields:
        found = np.logical_or.reduceat(found, fields["offsets"][:-1])
    defaults = {"offsets": None, "dtype": "float32"}
    return LookupResult(model, ids, found, int((ids < 0).sum()), **(defaults | fields))


def expected_json(result, vectors):
    content = {"model": "model", "dim": vectors.shape[1], "vectors": vectors.astype(np.float32)}
    content["found"] = result.found
    if result.offsets is not None:
        content["offsets"] = result.offsets
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def body_of(result):
    return b"".join(encode(result, (JSON,)).chunks)


@pytest.mark.parametrize("repeats", REPEATS)
def test_text_of_rows_is_that_of_orjson(model, repeats):
    ids = np.tile(IDS, repeats)
    vectors = model.decode(ids, None)
    assert body_of(result_of(model, ids)) == expected_json(result_of(model, ids), vectors)


@pytest.mark.parametrize("repeats", REPEATS)
def test_text_of_float16_is_that_of_orjson(model, repeats):
    result = result_of(model, np.tile(IDS, repeats), dtype="float16")
    vectors = model.decode(result.ids, None).astype(np.float16)
    if repeats == 1:
        result.vectors = vectors
    assert body_of(result) == expected_json(result, vectors)


def test_text_of_unknown_tokens_with_a_mean_is_that_of_orjson(model):
    fill = np.linspace(-1, 1, 300, dtype=np.float32)
    result = result_of(model, fill=fill)
    assert body_of(result) == expected_json(result, model.decode(IDS, fill))


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_text_of_pooled_rows_is_that_of_orjson(model, pool):
    result = result_of(model, offsets=np.array([0, 3, 20, len(IDS)]), pool=pool)
    assert body_of(result) == expected_json(result, result.compute(0, 3))


def test_text_of_nested_rows_is_that_of_orjson(model):
    result = result_of(model, offsets=np.array([0, 3, 20, len(IDS)]))
    assert body_of(result) == expected_json(result, model.decode(IDS, None))


def test_text_of_paged_rows_is_that_of_orjson(tmp_path):
    model = open_model(random_table(40, 300, 2, "uniform", parts=PARTS).paged(), tmp_path)
    assert body_of(result_of(model)) == expected_json(result_of(model), model.decode(IDS, None))


def test_text_without_rows_is_that_of_orjson(model):
    result = result_of(model, np.empty(0, np.int64))
    assert body_of(result) == expected_json(result, np.empty((0, 300), np.float32))


def test_text_of_any_values_is_that_of_orjson(tmp_path):
    table = random_table(2000, 300, 32, "float")
    bits = np.random.default_rng(0).integers(0, 1 << 32, table.codes.shape, np.uint32)
    result = result_of(open_model(table, tmp_path), np.arange(2000), vectors=bits.view(np.float32))
    assert body_of(result) == expected_json(result, bits.view(np.float32))
