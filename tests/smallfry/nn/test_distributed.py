import pytest
import torch
from torch import distributed, nn

from smallfry.compress import quantize
from smallfry.nn import QuantEmbedding, quantize_embed
from smallfry.sfq import file as sfq


@pytest.fixture
def group(tmp_path):
    if not distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Model(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding
        self.linear = nn.Linear(11, 3)

    def forward(self, ids):
        return self.linear(self.embedding(ids))


@pytest.fixture
def mapped(tmp_path):
    sfq.write(tmp_path / "t.sfq", quantize(torch.randn(30, 11).numpy(), 2))
    return QuantEmbedding.from_sfq(tmp_path / "t.sfq")


@pytest.mark.usefixtures("group")
def test_data_parallel_model_broadcasts_a_mapped_table_and_trains(mapped):
    before = mapped.weight.clone()
    model = nn.parallel.DistributedDataParallel(Model(mapped))
    for _ in range(2):
        model(torch.arange(30)).sum().backward()
    assert model.module.linear.weight.grad.any()
    assert torch.equal(mapped.weight, before)


@pytest.mark.usefixtures("group")
def test_tables_can_be_left_out_of_the_broadcast(mapped):
    model = Model(mapped)
    names = [f"embedding.{name}" for name, _ in mapped.named_buffers()]
    wrapper = nn.parallel.DistributedDataParallel
    wrapper._set_params_and_buffers_to_ignore_for_model(model, names)
    assert list(wrapper(model).modules_buffers) == []


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("frozen", [True, False])
def test_wrapped_model_is_quantized_with_a_warning_if_it_trains(frozen, caplog):
    embedding = nn.Embedding(30, 11)
    embedding.requires_grad_(not frozen)
    model = quantize_embed(nn.parallel.DistributedDataParallel(Model(embedding)))
    assert isinstance(model.module.embedding, QuantEmbedding)
    assert ("waiting for the gradient of module.embedding" in caplog.text) is not frozen
    for _ in range(2 if frozen else 1):
        model(torch.arange(30)).sum().backward()
