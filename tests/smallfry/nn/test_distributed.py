import copy

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


@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated:FutureWarning")
@pytest.mark.usefixtures("group")
def test_data_parallel_model_without_broadcast_of_buffers_leaves_the_codes_alone(mapped):
    version = mapped.codes._version
    model = nn.parallel.DistributedDataParallel(Model(mapped), broadcast_buffers=False)
    for _ in range(2):
        model(torch.arange(30)).sum().backward()
    assert mapped.codes._version == version


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 11)
        self.linear = nn.Linear(11, 11)
        self.head = nn.Linear(11, 30)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.linear(self.embedding(ids)))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("sharded", [[], ["linear", "head"], ["embedding", "linear", "head"]])
def test_fully_sharded_model_with_a_tied_head_trains(sharded):
    from torch.distributed.fsdp import fully_shard

    ids = torch.arange(30)
    model = quantize_embed(Tied(), nbit=4)
    whole = copy.deepcopy(model)
    for name in sharded:
        fully_shard(model.get_submodule(name))
    fully_shard(model)
    for each in (model, whole):
        each(ids).square().sum().backward()
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad.full_tensor(), parameter.grad)


@pytest.mark.usefixtures("group")
def test_mixed_precision_of_a_fully_sharded_model_goes_with_embeddings_of_its_dtype():
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = quantize_embed(Tied(), nbit=4)
    model.embedding.to(torch.bfloat16)
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    output = model(torch.arange(30))
    output.sum().backward()
    assert output.dtype == torch.bfloat16


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
