import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from smallfry import store
from smallfry.errors import InputError, SfqError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag
from smallfry.sfq import file as sfq
from smallfry.table import NBITS
from tests.helpers.tables import KINDS, random_table

PARTS = ("mean", "column_scale", "row_scale", "zero_rows")


@pytest.fixture
def path(tmp_path):
    sfq.write(tmp_path / "table.sfq", random_table(30, 11, 2, "uniform", parts=("zero_rows",)))
    return tmp_path / "table.sfq"


@pytest.mark.parametrize(("nbit", "kind"), [(nbit, kind) for nbit in NBITS for kind in KINDS[nbit]])
def test_module_over_a_file_returns_what_the_store_does(tmp_path, nbit, kind):
    sfq.write(tmp_path / "t.sfq", random_table(30, 11, nbit, kind, parts=PARTS))
    ids = torch.randint(0, 30, (50,))
    expected = store.open(tmp_path / "t.sfq").rows(ids.numpy())
    assert np.array_equal(QuantEmbedding.from_sfq(tmp_path / "t.sfq")(ids).numpy(), expected)


@pytest.mark.parametrize(("nbit", "kind"), [(1, "uniform"), (3, "trellis"), (16, "exact")])
def test_rows_of_a_paged_file_are_copied(tmp_path, nbit, kind):
    table = random_table(30, 11, nbit, kind, parts=PARTS)
    sfq.write(tmp_path / "paged.sfq", table.paged())
    module = QuantEmbedding.from_sfq(tmp_path / "paged.sfq")
    assert not module.mapped
    assert np.array_equal(module(torch.arange(30)).numpy(), table.decode())
    assert torch.equal(copy.deepcopy(module).weight, module.weight)


def test_file_with_heads_is_rejected(tmp_path):
    sfq.write(tmp_path / "heads.sfq", random_table(30, 11, 2, "uniform").paged([0, 10, 30]))
    with pytest.raises(InputError, match=r"heads\.sfq has head offsets.*StoreEmbedding"):
        QuantEmbedding.from_sfq(tmp_path / "heads.sfq")


def test_options_and_dtype_are_taken(path):
    module = QuantEmbedding.from_sfq(path, padding_idx=-1, dtype=torch.float16)
    assert (module.padding_idx, module(torch.tensor([0])).dtype) == (29, torch.float16)
    assert QuantEmbeddingBag.from_sfq(path, mode="sum").mode == "sum"


def test_module_written_to_a_file_is_the_file(path, tmp_path):
    QuantEmbedding.from_sfq(path).to_sfq(tmp_path / "again.sfq")
    assert (tmp_path / "again.sfq").read_bytes() == path.read_bytes()


def test_tokens_go_into_the_file(path, tmp_path):
    module = QuantEmbedding.from_sfq(path)
    module.to_sfq(tmp_path / "words.sfq", tokens=[f"word{row}" for row in range(30)])
    vectors, found = store.open(tmp_path / "words.sfq").lookup(["word7", "absent"])
    assert found.tolist() == [True, False]
    assert np.array_equal(vectors[0], module(torch.tensor(7)).numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_module_is_written_with_the_values_it_returns(path, tmp_path, dtype):
    module = QuantEmbedding.from_sfq(path, dtype=dtype)
    module.to_sfq(tmp_path / "half.sfq")
    expected = module(torch.arange(30)).float()
    assert torch.equal(QuantEmbedding.from_sfq(tmp_path / "half.sfq")(torch.arange(30)), expected)


def test_damaged_file_is_rejected(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SfqError):
        QuantEmbedding.from_sfq(path)


def copied_in_a_model(module):
    return copy.deepcopy(torch.nn.Sequential(module))[0]


def test_deepcopy_maps_the_file_again(path):
    module = QuantEmbedding.from_sfq(path)
    twin, before = copied_in_a_model(module), module.weight.clone()
    assert twin.mapped
    assert torch.equal(twin.weight, before)
    for buffer in twin.buffers():
        buffer.zero_()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: write_other(path)])
def test_deepcopy_copies_the_codes_of_a_file_that_is_gone_or_replaced(path, change):
    module = QuantEmbedding.from_sfq(path)
    change(path)
    twin = copied_in_a_model(module)
    assert module.mapped
    assert not twin.mapped
    assert torch.equal(twin.weight, module.weight)
    assert twin.codes.data_ptr() != module.codes.data_ptr()


def write_other(path):
    sfq.write(path, random_table(30, 11, 2, "uniform", seed=1))


@pytest.mark.parametrize("inference", [False, True])
def test_copies_of_changed_codes_have_the_changed_codes(path, inference, monkeypatch):
    with torch.inference_mode(inference):
        module = QuantEmbedding.from_sfq(path)
    module.codes.fill_(7)
    assert not module.mapped
    assert torch.equal(copied_in_a_model(module).weight, module.weight)
    monkeypatch.setattr("smallfry.nn.module.get_spawning_popen", object)
    assert torch.equal(pickle.loads(pickle.dumps(module)).weight, module.weight)


@pytest.mark.parametrize("first", [0, 1])
def test_deepcopy_keeps_a_shared_table_shared(path, first):
    module = QuantEmbedding.from_sfq(path)
    sharing = [module, QuantEmbeddingBag.from_packed(module.packed)]
    twins = copy.deepcopy([sharing[first], sharing[1 - first]])
    assert twins[0].codes is twins[1].codes
    assert twins[0].codes is not module.codes


def test_what_is_written_to_the_codes_stays_in_the_process(path):
    before = path.read_bytes()
    module = QuantEmbedding.from_sfq(path)
    module.codes.zero_()
    assert not module.codes.any()
    assert path.read_bytes() == before


def test_loading_a_state_dict_leaves_the_copies_of_a_mapped_module(path):
    module = QuantEmbedding.from_sfq(path)
    twin, before = copy.deepcopy(module), module.weight.clone()
    module.load_state_dict(QuantEmbedding(30, 11, _weight=torch.randn(30, 11), nbit=2).state_dict())
    assert torch.equal(twin.weight, before)
    assert twin.mapped
    assert not module.mapped


def test_module_that_moved_is_no_longer_mapped(path):
    module = QuantEmbedding.from_sfq(path).to("meta")
    assert not module.mapped
    assert QuantEmbedding.from_sfq(path, device="cpu").mapped


def test_pickle_holds_the_codes(path):
    module = QuantEmbedding.from_sfq(path)
    data, expected = pickle.dumps(module), module.weight.clone()
    path.unlink()
    assert torch.equal(pickle.loads(data).weight, expected)


def spawned(path, monkeypatch):
    """Pickle a mapped module as for a process being spawned."""
    module = QuantEmbedding.from_sfq(path)
    monkeypatch.setattr("smallfry.nn.module.get_spawning_popen", object)
    return pickle.dumps(module)


def test_spawned_process_maps_the_file_again(path, monkeypatch):
    made = pickle.loads(spawned(path, monkeypatch))
    assert made.mapped
    assert torch.equal(made.weight, QuantEmbedding.from_sfq(path).weight)


def test_spawned_process_rejects_another_file(path, monkeypatch):
    data = spawned(path, monkeypatch)
    write_other(path)
    with pytest.raises(SfqError, match="was replaced by another file"):
        pickle.loads(data)


class Rows(Dataset):
    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return self.module(torch.tensor(index))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_use_it(path, method):
    module = QuantEmbedding.from_sfq(path)
    loader = DataLoader(Rows(module), batch_size=10, num_workers=1, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), module(torch.arange(30)))
