import pytest
import torch
from accelerate import (
    Accelerator,
    cpu_offload,
    disk_offload,
    dispatch_model,
    init_empty_weights,
    load_checkpoint_and_dispatch,
)
from accelerate.hooks import remove_hook_from_module
from safetensors.torch import load_file, save_file
from torch import nn

from smallfry import quantize_embed
from smallfry.nn import TiedLinear
from smallfry.nn.kernels import operators

IDS = torch.arange(12).view(3, 4)


class Language(nn.Module):
    def __init__(self, tied=True, padding_idx=0):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.body(self.embedding(ids))))


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request):
    return quantize_embed(Language(request.param), 4)


def offload_to_memory(model, folder):
    return cpu_offload(model, execution_device="cpu", offload_buffers=True)


def offload_to_disk(model, folder):
    return disk_offload(model, folder, execution_device="cpu", offload_buffers=True)


def dispatch(model, folder):
    devices = {"embedding": "cpu", "body": "disk", "head": "disk"}
    return dispatch_model(model, devices, main_device="cpu", offload_dir=folder, offload_buffers=True)


def dispatch_the_table(model, folder):
    devices = {"embedding": "disk", "body": "cpu", "head": "cpu"}
    return dispatch_model(model, devices, main_device="cpu", offload_dir=folder, offload_buffers=True)


OFFLOADS = [offload_to_memory, offload_to_disk, dispatch, dispatch_the_table]


@pytest.mark.parametrize("offload", OFFLOADS)
def test_offloaded_model_gives_the_same_values(model, offload, tmp_path):
    expected = model(IDS)
    offload(model, tmp_path)
    assert torch.equal(model(IDS), expected)
    assert torch.equal(model(IDS), expected)


def test_hooks_that_are_removed_leave_the_model_as_it_was(model, tmp_path):
    expected = model(IDS)
    offload_to_memory(model, tmp_path)
    remove_hook_from_module(model, recurse=True)
    assert torch.equal(model(IDS), expected)


def test_offloaded_model_has_the_gradients_of_its_inputs(tmp_path):
    model, gradients = quantize_embed(Language(), 4), []
    for prepare in (lambda model: model, lambda model: offload_to_memory(model, tmp_path)):
        states = torch.linspace(-1, 1, 16).requires_grad_()
        prepare(model).head(states).sin().sum().backward()
        gradients.append(states.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("call", [lambda m: m.embedding.weight[IDS], lambda m: linear(m.embedding)])
def test_offloaded_table_is_not_read_without_its_hooks(call, tmp_path):
    model = offload_to_memory(quantize_embed(Language(), 4), tmp_path)
    with pytest.raises(RuntimeError, match="on meta"):
        call(model).sum().item()


def linear(embedding):
    return operators.linear(torch.ones(16), embedding.packed)


def empty(model):
    with init_empty_weights(include_buffers=True):
        return quantize_embed(Language(tied=isinstance(model.head, TiedLinear)), 4)


@pytest.mark.parametrize("devices", [{"": "cpu"}, {"embedding": "cpu", "body": "disk", "head": "disk"}])
def test_packed_checkpoint_is_loaded_and_dispatched(devices, tmp_path):
    # Without a row of zeros: accelerate ignores tensors that the empty model does not have.
    model = quantize_embed(Language(padding_idx=None), 4)
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_checkpoint_and_dispatch(
        empty(model),
        str(tmp_path / "model.safetensors"),
        device_map=devices,
        offload_folder=tmp_path / "offload",
        offload_buffers=True,
    )
    assert torch.equal(loaded(IDS), model(IDS))


def test_packed_checkpoint_is_assigned_and_dispatched(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    loaded = empty(model)
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    assert torch.equal(dispatch(loaded, tmp_path)(IDS), model(IDS))


def test_state_of_an_accelerator_is_restored(model, tmp_path):
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    model, optimizer = accelerator.prepare(model, optimizer)

    def step():
        optimizer.zero_grad()
        accelerator.backward(model(IDS).square().mean())
        optimizer.step()
        return model(IDS)

    step()
    accelerator.save_state(tmp_path)
    expected = step()
    step()
    model.embedding.codes.zero_()
    accelerator.load_state(tmp_path)
    assert torch.equal(step(), expected)
