import copy
import io
import pickle

import pytest
import torch
import torch.utils.checkpoint as checkpointing
from torch import func, nn
from torch.autograd import forward_ad
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from smallfry.nn import QuantEmbedding, TiedLinear, checkpoint, quantize_embed
from smallfry.nn.kernels import operators, products

# torch scripts its forward derivatives when the first one is computed.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class Language(nn.Module):
    """A model whose head has the embedding's weight."""

    def __init__(self, tied=True):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 50)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.embedding(ids)))


class HeadFirst(Language):
    """The same model with the head registered before the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = self._modules.pop("embedding")


@pytest.fixture(params=[Language, HeadFirst])
def model(request):
    return quantize_embed(request.param(), 4)


IDS = torch.arange(12).view(3, 4)


def test_embedding_is_not_a_submodule_of_the_head(model):
    assert model.head.embedding is model.embedding
    assert list(model.head.state_dict()) == ["bias"]
    assert set(model.state_dict()) == {"embedding.codes", "embedding.codebook", "head.bias"}
    assert {name for name, _ in model.named_modules()} == {"", "embedding", "head"}


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved],
    ids=["deepcopy", "pickle", "save"],
)
def test_copy_of_a_model_has_one_table(model, copied):
    other = copied(model)
    assert other.head.embedding is other.embedding is not model.embedding
    assert torch.equal(other(IDS), model(IDS))
    assert other.double().head(torch.ones(16, dtype=torch.float64)).dtype == torch.float64


def test_functional_call_replaces_the_table_of_the_head(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["embedding.codebook"] *= 2
    expected = copy.deepcopy(model)
    expected.load_state_dict(state)
    assert torch.equal(func.functional_call(model, state, (IDS,)), expected(IDS))


@pytest.mark.parametrize("strict", [True, False])
def test_model_exports(model, strict):
    program = torch.export.export(model, (IDS,), strict=strict)
    assert set(program.state_dict) == set(model.state_dict())
    torch.testing.assert_close(program.module()(IDS), model(IDS))


@pytest.mark.parametrize("strict", [True, False])
def test_head_without_its_model_exports(strict):
    head, states = TiedLinear(QuantEmbedding(50, 16, _weight=torch.randn(50, 16), nbit=4)), torch.randn(3, 16)
    program = torch.export.export(head, (states,), strict=strict)
    torch.testing.assert_close(program.module()(states), head(states))


def test_forward_hooks_of_the_embedding_do_not_apply_to_the_head(model):
    states = torch.randn(3, 16)
    expected = model.head(states)
    model.embedding.register_forward_hook(lambda module, args, rows: rows + 1)
    assert torch.equal(model.head(states), expected)


def test_replaced_forward_of_the_embedding_applies_to_the_head(model):
    states = torch.randn(3, 16)
    expected, forward, calls = model.head(states), model.embedding.forward, []
    model.embedding.forward = lambda *args, **kwargs: calls.append(args) or forward(*args, **kwargs)
    assert torch.equal(model.head(states), expected)
    assert len(calls) == 1


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("names", [["embedding"], ["head"], ["embedding", "head"]])
@pytest.mark.parametrize("kind", [Language, HeadFirst])
def test_weight_of_a_tied_float_checkpoint_is_quantized_once(monkeypatch, kind, names, assign):
    source, model = kind(), quantize_embed(kind(), 4)
    expected = quantize_embed(copy.deepcopy(source), 4)
    state = source.state_dict()
    for name in {"embedding", "head"} - set(names):
        del state[f"{name}.weight"]
    calls, quantize = [], checkpoint.quantize_tensor
    monkeypatch.setattr(checkpoint, "quantize_tensor", lambda *args: calls.append(args) or quantize(*args))
    model.load_state_dict(state, assign=assign)
    assert torch.equal(model(IDS), expected(IDS))
    assert len(calls) == 1


def test_missing_weight_of_a_tied_checkpoint_is_reported(model):
    with pytest.raises(RuntimeError, match=r'Missing key\(s\).*"embedding.codes", "embedding.codebook"'):
        model.load_state_dict({"head.bias": torch.zeros(50)})


def test_each_load_reports_its_missing_keys(model):
    model.load_state_dict(Language().state_dict())
    assert model.load_state_dict({}, strict=False).missing_keys == list(model.state_dict())


def test_weight_of_another_shape_names_the_head(model):
    with pytest.raises(
        RuntimeError, match=r"head: weight is torch.float32 \[49, 16\], expected .* \[50, 16\]"
    ):
        model.load_state_dict({"head.weight": torch.zeros(49, 16)}, strict=False)


def test_unknown_entry_of_a_head_is_unexpected(model):
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "head.scale"'):
        model.load_state_dict({**Language().state_dict(), "head.scale": torch.zeros(1)})


def test_untied_float_checkpoint_loads_into_an_untied_model():
    source = Language(tied=False)
    model = quantize_embed(Language(tied=False), 4)
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(IDS), quantize_embed(source, 4)(IDS))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("padded", [(True, False), (False, True)])
def test_optional_parts_are_those_of_the_checkpoint(padded, assign):
    source, model = (language(zero_row) for zero_row in padded)
    model.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(model(IDS), source(IDS))
    assert (model.embedding.zero_rows is None) == (source.embedding.zero_rows is None)


def language(zero_row):
    model = Language()
    if zero_row:
        model.embedding.weight.data[3] = 0
        return quantize_embed(model, 4, center=True, row_scale=True)
    return quantize_embed(model, 4)


def tied(rows, dim):
    weight = torch.randn(rows, dim, dtype=torch.float64)
    bias = nn.Parameter(torch.randn(rows, dtype=torch.float64))
    return TiedLinear(QuantEmbedding(rows, dim, _weight=weight, nbit=8), bias)


@pytest.fixture
def head():
    return tied(50, 16)


def plain(head):
    linear = nn.Linear(16, 50, dtype=torch.float64)
    linear.weight = nn.Parameter(head.weight.clone(), requires_grad=False)
    linear.bias = head.bias
    return linear


def scalar(layer):
    return lambda states: layer(states.sin()).cos().sum()


STATES = torch.linspace(-1, 1, 48, dtype=torch.float64).view(3, 16)

TRANSFORMS = {
    "jvp": lambda layer: func.jvp(layer, (STATES,), (STATES.cos(),)),
    "vjp": lambda layer: func.vjp(layer, STATES)[1](layer(STATES)),
    "grad": lambda layer: func.grad(scalar(layer))(STATES),
    "grad of grad": lambda layer: func.grad(lambda x: func.grad(scalar(layer))(x).sin().sum())(STATES),
    "grad of jvp": lambda layer: func.grad(lambda x: func.jvp(scalar(layer), (x,), (STATES.cos(),))[1])(
        STATES
    ),
    "jvp of grad": lambda layer: func.jvp(func.grad(scalar(layer)), (STATES,), (STATES.cos(),)),
    "jacfwd": lambda layer: func.jacfwd(layer)(STATES),
    "jacrev": lambda layer: func.jacrev(layer)(STATES),
    "hessian": lambda layer: func.hessian(scalar(layer))(STATES[0]),
    "jacfwd of jacfwd": lambda layer: func.jacfwd(func.jacfwd(scalar(layer)))(STATES[0]),
    "jacrev of jacrev": lambda layer: func.jacrev(func.jacrev(scalar(layer)))(STATES[0]),
    "vmap": lambda layer: func.vmap(layer, in_dims=1, out_dims=1)(
        STATES.view(3, 2, 8, 1).expand(3, 2, 8, 16)
    ),
    "vmap of vmap": lambda layer: func.vmap(func.vmap(layer))(STATES.view(3, 1, 16)),
    "gradient of each sample": lambda layer: func.vmap(func.grad(scalar(layer)))(STATES),
    "gradient of the bias": lambda layer: func.grad(
        lambda bias: func.functional_call(layer, {"bias": bias}, (STATES,)).sin().sum()
    )(layer.bias.detach()),
    "Hessian of autograd": lambda layer: torch.autograd.functional.hessian(scalar(layer), STATES[0]),
    "Jacobian of autograd, forward": lambda layer: torch.autograd.functional.jacobian(
        layer, STATES, vectorize=True, strategy="forward-mode"
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_agree_with_those_of_linear(monkeypatch, head, transform):
    monkeypatch.setattr(products, "_CHUNK_VALUES", 16 * 7)
    torch.testing.assert_close(transform(head), transform(plain(head)))


@pytest.mark.parametrize("name", ["jvp", "gradient of each sample"])
def test_transforms_compile(head, name):
    compiled = torch.compile(TRANSFORMS[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(head), TRANSFORMS[name](plain(head)))


def test_exported_head_has_derivatives(head):
    exported = torch.export.export(head, (STATES,)).module()
    for name in ("jvp", "grad"):
        torch.testing.assert_close(TRANSFORMS[name](exported), TRANSFORMS[name](plain(head)))


def test_numerical_derivatives_agree():
    head, states = tied(5, 3), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    options = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(head, (states,), **options)
    assert torch.autograd.gradgradcheck(head, (states,), check_fwd_over_rev=True, check_rev_over_rev=True)


def test_dual_tensors_have_tangents(head):
    with forward_ad.dual_level():
        product = forward_ad.unpack_dual(head(forward_ad.make_dual(STATES, STATES.cos())))
    assert torch.equal(product.primal, head(STATES))
    torch.testing.assert_close(product.tangent, STATES.cos() @ head.weight.T)


def test_backward_twice_reaches_the_body(head):
    gradients = []
    for layer in (head, plain(head)):
        states = STATES.clone().requires_grad_()
        (first,) = torch.autograd.grad(scalar(layer)(states), states, create_graph=True)
        first.square().sum().backward()
        gradients.append(states.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(head, reentrant):
    gradients = []
    for call in (head, lambda states: checkpointing.checkpoint(head, states, use_reentrant=reentrant)):
        states = STATES.clone().requires_grad_()
        call(states).sin().sum().backward()
        gradients.append(states.grad)
    assert torch.equal(*gradients)


def test_no_gradient_is_recorded_without_need(head):
    head.requires_grad_(False)
    states = STATES.clone().requires_grad_()
    assert not head(STATES).requires_grad
    with torch.no_grad():
        assert not head(states).requires_grad
        assert func.grad(lambda x: (x * head(x).detach().sum()).sum())(STATES).shape == STATES.shape
    with torch.inference_mode():
        assert head(states).is_inference()


def test_vmap_takes_ids_and_tables(model):
    assert torch.equal(func.vmap(model)(IDS), model(IDS))
    assert torch.equal(func.vmap(model, in_dims=1, out_dims=1)(IDS), model(IDS))
    models = [quantize_embed(Language(), 4) for _ in range(3)]
    parameters, buffers = func.stack_module_state(models)

    def call(parameters, buffers):
        return func.functional_call(models[0], (parameters, buffers), (IDS,))

    torch.testing.assert_close(func.vmap(call)(parameters, buffers), torch.stack([m(IDS) for m in models]))


def test_gradients_of_each_sample_of_a_model(model):
    parameters = dict(model.named_parameters())

    def loss(parameters, ids):
        return func.functional_call(model, parameters, (ids,)).logsumexp(-1).sum()

    each = func.vmap(func.grad(loss), in_dims=(None, 0))(parameters, IDS)
    torch.testing.assert_close(
        each["head.bias"], torch.stack([func.grad(loss)(parameters, ids)["head.bias"] for ids in IDS])
    )


def test_derivatives_of_the_table_are_rejected():
    embedding = QuantEmbedding(50, 16, nbit=4)

    def product(codebook):
        return operators.linear(torch.ones(16), embedding.packed._replace(codebook=codebook)).sum()

    for derive in (
        lambda codebook: func.grad(product)(codebook),
        lambda codebook: func.jvp(product, (codebook,), (codebook,)),
    ):
        with pytest.raises(NotImplementedError, match="A packed table requires a gradient"):
            derive(embedding.codebook)


@pytest.mark.parametrize("padded", [(True, False), (False, True)])
def test_model_state_of_distributed_checkpoints_is_restored(padded):
    source, model = (language(zero_row) for zero_row in padded)
    set_model_state_dict(model, get_model_state_dict(source))
    assert torch.equal(model(IDS), source(IDS))
