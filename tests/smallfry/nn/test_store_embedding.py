import copy
import pickle

import pytest
import torch
from torch import nn

from smallfry.errors import InputError, SfqError
from smallfry.nn import StoreEmbedding
from smallfry.sfq import file as sfq
from tests.helpers.tables import random_table

HEADS = [0, 100, 150]


@pytest.fixture
def table():
    return random_table(150, 32, 3, "trellis", parts=("row_scale", "zero_rows"))


@pytest.fixture
def path(tmp_path, table):
    sfq.write(tmp_path / "table.sfq", table.paged())
    return tmp_path / "table.sfq"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_those_of_an_embedding_with_the_decoded_table(path, table, dtype):
    ids = torch.randint(0, 150, (4, 7))
    plain = nn.Embedding.from_pretrained(torch.from_numpy(table.decode()).to(dtype))
    assert torch.equal(StoreEmbedding(path, dtype=dtype)(ids), plain(ids))


def test_ids_are_local_to_a_head(tmp_path, table):
    sfq.write(tmp_path / "heads.sfq", table.paged(HEADS))
    embedding = StoreEmbedding(tmp_path / "heads.sfq")
    ids = torch.tensor([[99, 0], [0, 49]])
    rows = torch.from_numpy(table.decode([99, 100, 0, 149])).reshape(2, 2, -1)
    assert embedding.heads == 2
    assert torch.equal(embedding(ids), rows)
    with pytest.raises(IndexError, match="head 1"):
        embedding(torch.tensor([[0, 50]]))


def test_tables_of_any_layout_and_width_are_taken(tmp_path):
    for nbit, kind in ((32, "float"), (8, "uniform"), (2, "trellis")):
        table = random_table(20, 5, nbit, kind, parts=("mean", "row_scale"))
        sfq.write(tmp_path / f"{nbit}.sfq", table)
        embedding = StoreEmbedding(tmp_path / f"{nbit}.sfq")
        assert torch.equal(embedding(torch.arange(20)), torch.from_numpy(table.decode()))


@pytest.mark.parametrize("rounded", [False, True])
def test_rows_are_scaled(path, rounded):
    ids, scale = torch.arange(150), 33**0.5
    embedding = StoreEmbedding(path, dtype=torch.bfloat16, embed_scale=scale, round_scale=rounded)
    factor = torch.tensor(scale).bfloat16() if rounded else scale
    assert torch.equal(embedding(ids), StoreEmbedding(path, dtype=torch.bfloat16)(ids) * factor)


def test_pages_of_rows_are_read_ahead(path):
    ids = torch.tensor([[0, 1], [149, 149]])
    per_page = 4096 // 14
    assert StoreEmbedding(path).prefetch(ids.T).pages == 1 + (149 >= per_page)


def test_module_has_no_parameters_and_moves_with_its_model(path):
    model = nn.Sequential(StoreEmbedding(path))
    assert not list(model.parameters())
    assert model.to(torch.bfloat16)(torch.tensor([1])).dtype == torch.bfloat16
    assert model.half()(torch.tensor([1])).dtype == torch.float16
    with pytest.raises(TypeError, match=r"the dtype is torch\.float64"):
        model.double()


def test_state_dict_has_the_digest_and_no_table(path, table):
    model = nn.Sequential(StoreEmbedding(path))
    state = model.state_dict()
    assert list(state) == ["0._extra_state"]
    assert bytes(state["0._extra_state"]).startswith(b'{"name": "table.sfq", "digest": "')
    nn.Sequential(StoreEmbedding(path)).load_state_dict(state)
    sfq.write(path.with_name("other.sfq"), random_table(150, 32, 3, "trellis", seed=1).paged())
    with pytest.raises(InputError, match=r"saved with the table table\.sfq.*other\.sfq has"):
        nn.Sequential(StoreEmbedding(path.with_name("other.sfq"))).load_state_dict(state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_share_the_open_file(path, copied):
    embedding = StoreEmbedding(path, padding_idx=-1, dtype=torch.bfloat16, embed_scale=2.0).eval()
    twin = copied(embedding)
    assert twin.store is embedding.store
    assert (twin.padding_idx, twin.training, repr(twin)) == (149, False, repr(embedding))
    assert torch.equal(twin(torch.arange(9)), embedding(torch.arange(9)))
    assert len(pickle.dumps(embedding)) < 4096


def test_pickle_of_a_file_that_was_replaced_is_rejected(path):
    data = pickle.dumps(StoreEmbedding(path))
    sfq.write(path, random_table(150, 32, 3, "trellis", seed=1).paged())
    with pytest.raises(SfqError, match="was replaced by another file"):
        pickle.loads(data)


def test_relative_paths_stay_valid_in_another_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    embedding = StoreEmbedding("table.sfq")
    monkeypatch.chdir("/")
    assert embedding.path == str(path)
    assert torch.equal(copy.deepcopy(embedding)(torch.arange(3)), embedding(torch.arange(3)))


def test_symbolic_traces_call_the_module(path):
    traced = torch.fx.symbolic_trace(nn.Sequential(StoreEmbedding(path)))
    assert traced(torch.arange(3)).shape == (3, 32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": torch.float64}, TypeError, "the dtype is torch.float64"),
        ({"memory": "disk"}, InputError, "memory is 'disk'"),
        ({"padding_idx": 150}, InputError, "padding_idx is 150"),
    ],
)
def test_wrong_options_are_rejected(path, options, error, message):
    with pytest.raises(error, match=message):
        StoreEmbedding(path, **options)


def test_ids_of_another_dtype_are_rejected(path):
    with pytest.raises(TypeError, match="float32"):
        StoreEmbedding(path)(torch.zeros(3))
