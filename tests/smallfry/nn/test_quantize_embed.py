import copy
import logging
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from smallfry.errors import InputError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag, TiedLinear, quantize_embed


class Language(nn.Module):
    """A model whose head has the embedding's weight."""

    def __init__(self, tied=True, bias=True):
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=0)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=bias)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.body(self.embedding(ids))))


def test_embeddings_at_any_depth_are_replaced_in_place():
    model = nn.Sequential(
        nn.ModuleList([nn.Embedding(10, 4), nn.ModuleDict({"inner": nn.Embedding(20, 4)})]), nn.Linear(4, 4)
    )
    assert quantize_embed(model, nbit=4) is model
    assert isinstance(model[0][0], QuantEmbedding)
    assert isinstance(model[0][1]["inner"], QuantEmbedding)
    assert isinstance(model[1], nn.Linear)
    assert model[0][0].nbit == 4


def test_root_embedding_is_replaced_by_the_returned_module():
    assert isinstance(quantize_embed(nn.Embedding(10, 4)), QuantEmbedding)
    assert isinstance(quantize_embed(nn.EmbeddingBag(10, 4, mode="max")), QuantEmbeddingBag)


def test_bag_keeps_its_options():
    bag = nn.EmbeddingBag(10, 4, mode="sum", include_last_offset=True, padding_idx=2)
    assert quantize_embed(bag, 8).options == {"mode": "sum", "include_last_offset": True, "padding_idx": 2}


def test_device_dtype_and_training_are_kept():
    model = nn.Sequential(nn.Embedding(10, 4, device="meta", dtype=torch.bfloat16)).eval()
    packed = quantize_embed(model)[0]
    assert (packed.codes.device.type, packed.packed.dtype, packed.training) == ("meta", torch.bfloat16, False)


def test_module_in_several_places_is_replaced_by_one():
    embedding = nn.Embedding(10, 4)
    model = nn.ModuleDict({"encoder": nn.Sequential(embedding, embedding), "decoder": embedding})
    quantize_embed(model)
    assert model["encoder"][0] is model["encoder"][1] is model["decoder"]
    assert isinstance(model["decoder"], QuantEmbedding)


def test_packed_embedding_is_skipped():
    model = quantize_embed(Language(tied=False), nbit=2)
    before = model.embedding
    assert quantize_embed(model, nbit=8).embedding is before
    assert quantize_embed(model, nbit={"embedding": 8}).embedding is before


def test_filter_takes_names():
    model = nn.ModuleDict({"word": nn.Embedding(10, 4), "position": nn.Embedding(10, 4)})
    quantize_embed(model, filter=lambda name: name != "position")
    assert isinstance(model["word"], QuantEmbedding)
    assert type(model["position"]) is nn.Embedding


def test_bits_by_name_leave_the_others():
    model = nn.ModuleDict({name: nn.Embedding(10, 4) for name in ("a", "b", "c")})
    quantize_embed(model, nbit={"a": 2, "b": 8})
    assert (model["a"].nbit, model["b"].nbit) == (2, 8)
    assert type(model["c"]) is nn.Embedding


def test_bits_of_an_unknown_name_are_rejected_by_name():
    with pytest.raises(
        InputError, match=r"nbit names word, which is not an embedding of the model; .* are embedding"
    ):
        quantize_embed(Language(), nbit={"word": 2})


def test_one_module_under_two_names_has_one_number_of_bits():
    embedding = nn.Embedding(10, 4)
    model = nn.ModuleDict({"a": embedding, "b": embedding})
    with pytest.raises(InputError, match="nbit assigns 2, 8 bits to a, b, which is one module"):
        quantize_embed(model, nbit={"a": 2, "b": 8})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nbit", [1, 4, 32])
def test_tied_head_works_on_the_packed_table(nbit, bias):
    model = Language(bias=bias)
    reference = copy.deepcopy(model)
    quantize_embed(model, nbit)
    reference.embedding.weight.data = model.embedding.weight.clone()
    reference.head.weight = reference.embedding.weight
    ids = torch.randint(0, 50, (3, 7))
    ours, theirs = model(ids), reference(ids)
    torch.testing.assert_close(ours, theirs)
    assert isinstance(model.head, TiedLinear)
    assert model.head.embedding is model.embedding
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(model.body.weight.grad, reference.body.weight.grad)
    if bias:
        torch.testing.assert_close(model.head.bias.grad, reference.head.bias.grad)


def test_tied_head_stays_tied_when_the_model_moves():
    model = quantize_embed(Language()).to(torch.bfloat16)
    assert model.head.embedding is model.embedding
    assert model(torch.tensor([[1, 2]])).dtype == torch.bfloat16


def test_tied_model_survives_a_state_dict():
    model, other = quantize_embed(Language()), quantize_embed(Language())
    other.load_state_dict(model.state_dict())
    ids = torch.arange(5)
    assert torch.equal(other(ids), model(ids))


def test_tied_head_compiles():
    model = quantize_embed(Language())
    ids = torch.arange(5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids), model(ids))


def test_embeddings_that_share_a_weight_share_the_table():
    source, target = nn.Embedding(10, 4), nn.Embedding(10, 4)
    target.weight = source.weight
    bag = nn.EmbeddingBag(10, 4, _weight=source.weight)
    bag.weight = source.weight
    model = nn.ModuleDict({"source": source, "target": target, "bag": bag})
    quantize_embed(model)
    assert model["source"] is model["target"]
    assert model["bag"].codes is model["source"].codes
    assert isinstance(model["bag"], QuantEmbeddingBag)


def test_embeddings_that_share_a_weight_have_one_number_of_bits():
    model = nn.ModuleDict({"a": nn.Embedding(10, 4), "b": nn.Embedding(10, 4)})
    model["b"].weight = model["a"].weight
    with pytest.raises(InputError, match="a, b share a weight, but nbit assigns them different bits"):
        quantize_embed(model, nbit={"a": 2, "b": 4})


def test_weight_tied_to_an_unsupported_module_is_rejected_by_name():
    model = Language()
    model.other = nn.ParameterDict({"projection": model.embedding.weight})
    with pytest.raises(InputError, match=r"embedding\.weight is also other\.projection of ParameterDict"):
        quantize_embed(model)
    assert type(model.embedding) is nn.Embedding
    assert model.head.weight is model.embedding.weight


def test_weight_tied_to_an_excluded_embedding_is_rejected_by_name():
    model = nn.ModuleDict({"a": nn.Embedding(10, 4), "b": nn.Embedding(10, 4)})
    model["b"].weight = model["a"].weight
    with pytest.raises(InputError, match=r"a\.weight is also b\.weight of Embedding"):
        quantize_embed(model, filter=lambda name: name == "a")


def test_weight_that_is_a_parameter_of_the_root_is_rejected_by_name():
    model = Language(tied=False)
    model.table = model.embedding.weight
    with pytest.raises(InputError, match=r"embedding\.weight is also table of Language"):
        quantize_embed(model)


def test_max_norm_is_rejected_by_name():
    model = nn.ModuleDict({"plain": nn.Embedding(10, 4), "odd": nn.Embedding(10, 4, max_norm=1.0)})
    with pytest.raises(InputError, match="odd: max_norm"):
        quantize_embed(model)
    assert type(model["plain"]) is nn.Embedding


@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}, {"norm_type": 1.0}])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_options_of_the_gradient_are_kept(kind, options):
    packed = quantize_embed(kind(10, 4, **options))
    assert {name: getattr(packed, name) for name in options} == options


def bert(words=3000, positions=60, types=2):
    return nn.ModuleDict(
        {
            "words": nn.Embedding(words, 8),
            "positions": nn.Embedding(positions, 8),
            "types": nn.Embedding(types, 8),
        }
    )


def packed_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, QuantEmbedding)]


@pytest.mark.parametrize("nbit", [1, 8, 16, 32])
def test_embeddings_far_smaller_than_the_largest_stay_in_float(nbit):
    assert packed_names(quantize_embed(bert(), nbit)) == ["words"]
    assert packed_names(quantize_embed(bert(positions=75), nbit)) == ["words", "positions"]


def test_min_share_of_zero_replaces_every_embedding():
    assert packed_names(quantize_embed(bert(), min_share=0)) == ["words", "positions", "types"]


def test_embeddings_with_bits_by_name_are_replaced_however_small():
    assert packed_names(quantize_embed(bert(), {"words": 2, "types": 8})) == ["words", "types"]


def test_min_share_is_relative_to_the_largest_selected_embedding():
    assert packed_names(quantize_embed(bert(), filter=lambda name: name != "words")) == ["positions", "types"]


def test_many_embeddings_of_one_size_are_replaced():
    assert len(packed_names(quantize_embed(nn.ModuleList(nn.Embedding(10, 4) for _ in range(100))))) == 100


def test_quantizing_again_replaces_no_more_embeddings():
    model = quantize_embed(bert())
    assert packed_names(quantize_embed(model)) == ["words"]


def test_small_embedding_stays_tied_to_its_head():
    model = nn.ModuleDict({"large": nn.Embedding(3000, 16), "small": Language()})
    quantize_embed(model)
    assert model["small"].head.weight is model["small"].embedding.weight


@pytest.mark.parametrize("share", [-0.1, 2, float("nan")])
def test_min_share_out_of_range_is_rejected(share):
    with pytest.raises(InputError, match=f"min_share is {share}, expected"):
        quantize_embed(bert(), min_share=share)


def test_weight_that_is_not_finite_is_rejected_by_name():
    model = Language(tied=False)
    model.embedding.weight.data[3, 2] = float("inf")
    with pytest.raises(InputError, match=r"embedding: .*row 3, column 2"):
        quantize_embed(model)


class Shifted(nn.Embedding):
    def forward(self, ids):
        return super().forward(ids + 1)


def test_subclass_with_its_own_forward_stays_with_a_warning(caplog):
    model = nn.ModuleDict({"shifted": Shifted(10, 4)})
    quantize_embed(model)
    assert type(model["shifted"]) is Shifted
    assert "shifted stays as it is: Shifted has its own forward" in caplog.text


def test_sizes_and_errors_are_logged(caplog):
    model = bert()
    model["shifted"] = Shifted(3000, 8)
    model["tied"] = nn.Embedding(3000, 8)
    model["tied"].weight = model["words"].weight
    with caplog.at_level(logging.INFO, "smallfry"):
        quantize_embed(model, nbit=2, filter=lambda name: name != "types")
    lines = [" ".join(line.split()) for line in caplog.messages[-1].splitlines()]
    change = f"3000 × 8 2 bits 96,000 → 6,016 bytes relative error {model['words'].frobenius_error:.4f}"
    assert lines == [
        f"words {change}",
        f"tied {change}",
        "positions 60 × 8 float 1,920 → 1,920 bytes less than 2.5% of the largest embedding",
        "types 2 × 8 float 64 → 64 bytes not selected",
        "shifted 3000 × 8 float 96,000 → 96,000 bytes "
        "Shifted has its own forward, which a packed module would not run",
        "embeddings took 193,984 bytes and take 104,000, 1.9 times less",
    ]


def test_empty_embedding_is_logged(caplog):
    with caplog.at_level(logging.INFO, "smallfry"):
        quantize_embed(nn.Embedding(0, 4), 32)
    assert "embeddings took 0 bytes and take 0" in caplog.text


def test_transformers_without_quantizers_of_others_gives_a_warning(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.modeling_utils", ModuleType("modeling_utils"))
    monkeypatch.setitem(sys.modules, "smallfry.transformers", None)
    assert isinstance(quantize_embed(nn.Sequential(nn.Embedding(10, 4)))[0], QuantEmbedding)
    assert "save_pretrained of transformers will not keep the embeddings packed" in caplog.text


def test_model_without_embeddings_is_returned_as_it_is(caplog):
    model = nn.Linear(2, 2)
    with caplog.at_level(logging.INFO, "smallfry"):
        assert quantize_embed(model) is model
    assert caplog.messages == ["the model has no embedding to quantize"]


def test_packed_model_has_no_embedding_to_quantize(caplog):
    model = quantize_embed(bert())
    with caplog.at_level(logging.INFO, "smallfry"):
        quantize_embed(model)
    assert "6,016 → 6,016 bytes already packed" in " ".join(caplog.text.split())
    assert "the model has no embedding to quantize" in caplog.text


def hooked(embedding):
    embedding.register_forward_hook(lambda module, ids, rows: rows * 4)


def patched(embedding):
    embedding.forward = lambda ids: nn.Embedding.forward(embedding, ids) * 4


@pytest.mark.parametrize(("change", "words"), [(hooked, "has forward hooks"), (patched, "its own forward")])
def test_embedding_that_does_more_than_look_up_stays_with_a_warning(change, words, caplog):
    model = nn.ModuleDict({"scaled": nn.Embedding(10, 4)})
    change(model["scaled"])
    before = model["scaled"](torch.arange(10))
    quantize_embed(model)
    assert torch.equal(model["scaled"](torch.arange(10)), before)
    assert words in caplog.text


def test_tied_head_with_hooks_is_rejected_by_name():
    model = Language()
    model.head.register_forward_hook(lambda module, states, scores: scores * 4)
    with pytest.raises(InputError, match=r"embedding\.weight is also head\.weight of Linear"):
        quantize_embed(model)


def test_head_over_the_memory_of_the_embedding_is_tied():
    model = Language(tied=False)
    model.head.weight = nn.Parameter(model.embedding.weight.data)
    quantize_embed(model, nbit=4)
    assert model.head.embedding is model.embedding


def test_transposed_view_of_the_weight_is_rejected_by_name():
    model = Language(tied=False)
    model.projection = nn.Parameter(model.embedding.weight.data.T)
    with pytest.raises(InputError, match=r"embedding\.weight is also projection of Language"):
        quantize_embed(model)


@pytest.mark.parametrize(
    ("build", "view"),
    [
        (lambda: nn.Linear(16, 16, bias=False), lambda weight: weight.T),
        (lambda: nn.Embedding(16, 16), lambda weight: weight.T),
        (lambda: nn.Embedding(32, 8), lambda weight: weight.view(32, 8)),
    ],
)
def test_other_view_of_the_weight_is_rejected_by_name(build, view):
    embedding, other = nn.Embedding(16, 16), build()
    other.weight.data = view(embedding.weight.data)
    model = nn.Sequential(embedding, other)
    with pytest.raises(InputError, match=r"0\.weight is also 1\.weight"):
        quantize_embed(model, 4)
    assert model[0] is embedding


def test_empty_embeddings_are_not_tied():
    model = quantize_embed(nn.Sequential(nn.Embedding(0, 4), nn.Embedding(0, 6)), 4)
    assert [module.embedding_dim for module in model] == [4, 6]


def test_tying_again_changes_nothing():
    model = quantize_embed(Language())
    ids = torch.arange(5)
    before = model(ids)
    model.head.weight = model.embedding.weight
    model.embedding.weight = model.head.weight
    model.head.out_features = model.embedding.num_embeddings
    assert torch.equal(model(ids), before)


@pytest.mark.parametrize("make", [lambda: torch.zeros(50, 16), lambda: nn.Parameter(torch.zeros(50, 16))])
def test_another_weight_for_a_tied_head_is_rejected(make):
    model = quantize_embed(Language())
    with pytest.raises(AttributeError, match="cannot be written to"):
        model.head.weight = make()


def test_tied_head_under_autocast_computes_in_its_dtype():
    model, states = Language(), torch.randn(3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        dtype = model.head(states).dtype
        head = quantize_embed(model).head
        assert head(states).dtype == dtype == torch.bfloat16
        assert torch.compile(head, fullgraph=True, backend="aot_eager")(states).dtype == dtype


def test_3_bits_need_a_trellis_codebook():
    with pytest.raises(InputError, match=r"embedding: .*trellis"):
        quantize_embed(Language(), 3)
    model = quantize_embed(Language(), 3, codebook_kind="trellis", trellis_state_bits=12)
    assert model.head.embedding is model.embedding
    assert model.embedding.codebook.shape == (4096,)


@pytest.mark.parametrize("nbit", [5, 4.0, "4", None])
def test_unsupported_number_of_bits_is_rejected_by_name(nbit):
    with pytest.raises(InputError, match=f"embedding: nbit is {nbit!r}, expected one of 1, 2, 3, 4"):
        quantize_embed(Language(), nbit)
