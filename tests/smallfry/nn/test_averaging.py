"""Averages over the buffers of a model and its copies, as training frameworks make them."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from smallfry.nn import QuantEmbedding
from smallfry.nn.buffers import IntegerBuffer
from smallfry.nn.packed import Packed
from tests.helpers.tables import PARTS, random_table

ROWS, DIM = 300, 11
IDS = torch.arange(ROWS)


@pytest.fixture(params=["memory", "mapped"])
def model(request, tmp_path):
    table = random_table(ROWS, DIM, 4, "trellis", parts=PARTS)
    embedding = QuantEmbedding.from_packed(Packed.from_table(table))
    if request.param == "mapped":
        embedding.to_sfq(tmp_path / "table.sfq")
        embedding = QuantEmbedding.from_sfq(tmp_path / "table.sfq")
    return nn.Sequential(embedding, nn.Linear(DIM, 2))


LOOPS = {
    "buffers": lambda m: m.buffers(),
    "state_dict": lambda m: m.state_dict().values(),
    "detached": lambda m: [buffer.detach() for buffer in m.buffers()],
    "data": lambda m: [buffer.data for buffer in m.buffers()],
}


@pytest.mark.parametrize("tensors", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("write", ["copy_", "setitem"])
def test_hand_written_averages_keep_both_tables(model, tensors, write):
    average, before = copy.deepcopy(model), model[0](IDS)
    with torch.no_grad():
        for _ in range(20):
            for mean, value in zip(tensors(average), tensors(model), strict=True):
                new = mean * 0.999 + value * 0.001
                if write == "copy_":
                    mean.copy_(new)
                else:
                    mean[...] = new
    assert torch.equal(model[0](IDS), before)
    assert torch.equal(average[0].codes, model[0].codes)
    assert (average[0](IDS) - before).norm() <= torch.finfo(torch.float16).eps * before.norm()


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize(
    "function",
    [{}, {"avg_fn": get_ema_avg_fn(0.9)}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}],
    ids=["SWA", "EMA", "multi EMA"],
)
def test_averaged_models_keep_both_tables(model, function, use_buffers):
    before = model[0](IDS)
    average = AveragedModel(model, use_buffers=use_buffers, **function)
    for _ in range(20):
        average.update_parameters(model)
    assert torch.equal(model[0](IDS), before)
    for name in ("codes", "zero_rows"):
        assert torch.equal(getattr(average.module[0], name), getattr(model[0], name))
    # get_ema_avg_fn rounds to the dtype of each buffer, of which row_scale has the lowest precision.
    assert (average.module[0](IDS) - before).norm() <= torch.finfo(torch.float16).eps * before.norm()


@pytest.mark.parametrize(
    "average",
    [
        lambda mean, value: mean.mul_(0.9).add_(value, alpha=0.1),
        lambda mean, value: mean.lerp_(value, 0.1),
        lambda mean, value: mean.__imul__(0.9),
        lambda mean, value: get_swa_multi_avg_fn()([mean], [value], torch.tensor(3)),
    ],
)
def test_averages_undefined_for_integers_raise(model, average):
    before = model[0].codes.clone()
    with pytest.raises((RuntimeError, NotImplementedError)):
        average(model[0].codes, before)
    assert torch.equal(model[0].codes, before)


def test_average_with_another_table_raises(model):
    other = QuantEmbedding(ROWS, DIM, _weight=torch.randn(ROWS, DIM), nbit=4)
    before = model[0].codes.clone()
    with pytest.raises(RuntimeError, match="Please average copies of one model"):
        model[0].codes.copy_(model[0].codes * 0.999 + other.codes * 0.001)
    assert torch.equal(model[0].codes, before)


def test_integers_are_copied(model):
    model[0].codes.copy_(torch.ones_like(model[0].codes))
    model[0].codes[3] = 2
    assert (model[0].codes[2:5, 0] == torch.tensor([1, 2, 1])).all()


def test_assigning_data_replaces_the_table(model):
    model[0].codes.data = torch.ones_like(model[0].codes)
    assert (model[0].packed.codes == 1).all()
    assert (model[0].codes == 1).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m,
        lambda m: m.half(),
        lambda m: m.to("meta").to_empty(device="cpu"),
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
        lambda m: m.share_memory(),
    ],
)
def test_integer_buffers_stay_protected(model, change):
    changed = change(model)[0]
    assert {name for name, buffer in changed.named_buffers() if type(buffer) is IntegerBuffer} == {
        "codes",
        "zero_rows",
    }
    assert all(type(part) is torch.Tensor for part in changed.packed[:5])


def test_attributes_set_by_libraries_are_kept(model):
    tensor = torch.ones(3, dtype=torch.uint8)
    tensor.is_initialized = True
    assert IntegerBuffer(tensor).is_initialized


def test_assigned_state_dict_is_protected(model):
    target = QuantEmbedding(ROWS, DIM, nbit=4, device="meta")
    target.load_state_dict(model[0].state_dict(), assign=True)
    assert type(target.codes) is IntegerBuffer


def test_saved_tensors_are_ordinary(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert type(torch.load(file, weights_only=True)["0.codes"]) is torch.Tensor
