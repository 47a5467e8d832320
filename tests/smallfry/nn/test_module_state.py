import copy
import io
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from smallfry.errors import InputError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag
from smallfry.nn.packed import PARTS, Packed
from smallfry.table import NBITS
from tests.helpers.tables import KINDS, random_table

EVERY = ("mean", "column_scale", "row_scale", "zero_rows")


def module(nbit=2, kind=None, parts=EVERY, seed=0):
    table = random_table(30, 11, nbit, kind or KINDS[nbit][0], parts=parts, seed=seed)
    return QuantEmbedding.from_packed(Packed.from_table(table), padding_idx=1)


def output(embedding):
    return embedding(torch.arange(30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("nbit", [1, 2, 3, 4, 8, 16])
def test_dtype_changes_the_codebook_and_the_output_only(nbit, dtype):
    kind = KINDS[nbit][-1]
    source, changed = module(nbit, kind), module(nbit, kind).to(dtype)
    parts = [name for name in PARTS if name != "column_scale" or kind == "trellis"]
    for name in parts:
        wanted = dtype if name == "codebook" else getattr(source, name).dtype
        assert getattr(changed, name).dtype == wanted
        if name != "codebook":
            assert torch.equal(getattr(changed, name), getattr(source, name))
    assert output(changed).dtype == changed.weight.dtype == dtype


@pytest.mark.parametrize("change", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_output_of_another_dtype_is_the_float32_output_rounded(change):
    plain = module(parts=("zero_rows",))
    changed = change(copy.deepcopy(plain))
    assert torch.equal(output(changed), output(plain).to(changed.codebook.dtype))


def test_type_leaves_integer_codes():
    changed = module().type(torch.float16)
    assert (changed.codes.dtype, changed.zero_rows.dtype) == (torch.uint8, torch.int64)
    assert changed.codebook.dtype == torch.float16


def test_integer_dtype_is_rejected():
    with pytest.raises(TypeError, match=r"torch.int64, but the output of a packed module is floating"):
        module().type(torch.int64)


def test_half_table_of_32_bits_is_stored_in_half_precision():
    changed = module(32, parts=()).half()
    assert changed.codes.dtype == torch.float16
    assert changed.nbytes == 30 * 11 * 2


@pytest.mark.parametrize("nbit", NBITS)
def test_to_empty_keeps_shapes_and_dtypes(nbit):
    source = module(nbit)
    emptied = copy.deepcopy(source).to("meta").to_empty(device="cpu")
    for name, buffer in source.named_buffers():
        made = getattr(emptied, name)
        assert (made.shape, made.dtype, made.device.type) == (buffer.shape, buffer.dtype, "cpu")


@pytest.mark.parametrize("parts", [(), EVERY])
@pytest.mark.parametrize(("nbit", "kind"), [(nbit, kind) for nbit in NBITS for kind in KINDS[nbit]])
def test_state_dict_loads_into_an_empty_module(nbit, kind, parts):
    source, target = module(nbit, kind, parts), QuantEmbedding(30, 11, nbit=nbit)
    target.load_state_dict(source.state_dict())
    assert torch.equal(output(target), output(source))


def test_loading_removes_parts_that_the_checkpoint_lacks():
    target = module(parts=EVERY)
    source = module(parts=(), seed=1)
    target.load_state_dict(source.state_dict())
    assert torch.equal(output(target), output(source))


def test_loading_keeps_the_dtype_of_the_module():
    target = QuantEmbedding(30, 11, nbit=2, dtype=torch.float16)
    target.load_state_dict(module(parts=()).state_dict())
    assert torch.equal(output(target), output(module(parts=())).half())


@pytest.mark.parametrize("nbit", [2, 32])
def test_state_dict_is_assigned_to_a_meta_module(nbit):
    source, target = module(nbit), QuantEmbedding(30, 11, nbit=nbit, device="meta")
    target.load_state_dict(source.state_dict(), assign=True)
    assert target.codes is source.codes or target.codes.data_ptr() == source.codes.data_ptr()
    assert torch.equal(output(target), output(source))


def test_modules_made_on_the_meta_device_allocate_nothing():
    source = module()
    with torch.device("meta"):
        target = QuantEmbedding(30, 11, nbit=2)
    assert target.codes.is_meta
    target.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(output(target), output(source))


def test_loading_into_a_meta_module_without_assign_warns():
    with pytest.warns(UserWarning, match="assign=True"):
        QuantEmbedding(30, 11, nbit=2, device="meta").load_state_dict(module().state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("codes"), 'Missing key.*"codes"'),
        (lambda s: s.pop("codebook"), 'Missing key.*"codebook"'),
        (
            lambda s: s.update(codes=s["codes"][:, 1:]),
            r"codes is torch.uint8 \[30, 2\], expected .* \[30, 3\]",
        ),
        (lambda s: s.update(codes=s["codes"].long()), "codes is torch.int64"),
        (lambda s: s.update(codes=s["codes"].numpy()), "codes is a ndarray, expected a tensor"),
        (lambda s: s.update(codebook=torch.zeros(5)), r"codebook is .* \[5\], expected .* \[4\]"),
        (lambda s: s.update(codebook=torch.zeros(4, dtype=torch.int32)), "expected a floating dtype"),
        (lambda s: s.update(codebook=torch.zeros(300)), "has 300 values, expected a power of two from 256"),
        (
            lambda s: s.update(codebook=torch.zeros(128, 2)),
            r"codebook is .* \[128, 2\], expected .* \[256\]",
        ),
        (lambda s: s.update(column_scale=torch.ones(11)), "column_scale needs a trellis codebook"),
        (lambda s: s.update(codebook=torch.zeros(256), column_scale=torch.ones(12)), "column_scale is"),
        (lambda s: s.update(mean=torch.zeros(12)), r"mean is .* \[12\]"),
        (lambda s: s.update(row_scale=torch.zeros(30)), "row_scale is torch.float32"),
        (lambda s: s.update(zero_rows=torch.tensor([3, 2])), "is not strictly increasing within the 30 rows"),
        (lambda s: s.update(zero_rows=torch.tensor([30])), "is not strictly increasing within the 30 rows"),
    ],
)
def test_state_dict_that_does_not_fit_is_rejected(change, words):
    state = module().state_dict()
    change(state)
    target = QuantEmbedding(30, 11, nbit=2)
    with pytest.raises(RuntimeError, match=words):
        target.load_state_dict(state)
    assert not output(target).any()


def test_unexpected_keys_are_rejected_where_loading_is_strict():
    state = {**module().state_dict(), "more": torch.zeros(1)}
    target = QuantEmbedding(30, 11, nbit=2)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"more"'):
        target.load_state_dict(state)
    assert target.load_state_dict(state, strict=False).missing_keys == []


def test_only_an_empty_weight_next_to_codes_is_skipped():
    source = module()
    target = QuantEmbedding(30, 11, nbit=2)
    target.load_state_dict({**source.state_dict(), "weight": torch.empty(0, dtype=torch.uint8)})
    assert torch.equal(output(target), output(source))
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"codes"'):
        target.load_state_dict({**source.state_dict(), "weight": torch.zeros(30, 11)})
    with pytest.raises(RuntimeError, match=r"weight is torch.uint8 \[0\]"):
        target.load_state_dict({"weight": torch.empty(0, dtype=torch.uint8)})


def test_state_dict_of_another_number_of_bits_is_rejected():
    with pytest.raises(RuntimeError, match="were num_embeddings, embedding_dim and nbit the same"):
        QuantEmbedding(30, 11, nbit=4).load_state_dict(module(2).state_dict())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("nbit", [2, 3])
def test_codebook_of_the_checkpoint_may_have_another_size(nbit, assign):
    table = random_table(30, 11, nbit, "trellis", parts=EVERY, state_bits=12)
    source, target = QuantEmbedding.from_packed(Packed.from_table(table)), QuantEmbedding(30, 11, nbit=nbit)
    target.load_state_dict(source.state_dict(), assign=assign)
    assert target.codebook.shape == (4096,)
    assert torch.equal(output(target), output(source))


def test_float_weight_becomes_a_trellis_at_3_bits():
    weight, target = torch.randn(30, 11), QuantEmbedding(30, 11, nbit=3)
    target.load_state_dict({"weight": weight})
    expected = QuantEmbedding(30, 11, _weight=weight, nbit=3, codebook_kind="trellis")
    assert torch.equal(output(target), output(expected))


def test_trellis_of_an_empty_module_needs_8_bits_in_a_row():
    with pytest.raises(InputError, match="rows of 2 values have 6 bits at 3 bits a value"):
        QuantEmbedding(30, 2, nbit=3)


def test_loading_into_shared_buffers_reaches_both_modules():
    first = module(parts=())
    second = QuantEmbeddingBag.from_packed(first.packed)
    first.load_state_dict(module(parts=(), seed=1).state_dict())
    assert torch.equal(second.weight, first.weight)


def test_torch_save_loads_with_weights_only():
    source, target = nn.Sequential(module()), nn.Sequential(QuantEmbedding(30, 11, nbit=2))
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(output(target[0]), output(source[0]))


def test_safetensors_saves_and_loads_the_model(tmp_path):
    source, target = nn.Sequential(module()), nn.Sequential(QuantEmbedding(30, 11, nbit=2))
    safetensors.torch.save_model(source, tmp_path / "model.safetensors")
    assert safetensors.torch.load_model(target, tmp_path / "model.safetensors") == (set(), [])
    assert torch.equal(output(target[0]), output(source[0]))


def test_tensors_of_a_sfq_file_are_a_state_dict(tmp_path):
    source, target = module(), QuantEmbedding(30, 11, nbit=2)
    source.to_sfq(tmp_path / "table.sfq")
    target.load_state_dict(safetensors.torch.load_file(tmp_path / "table.sfq"))
    assert torch.equal(output(target), output(source))


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_return_the_same_and_share_nothing(twin):
    source = module()
    made = twin(source)
    assert torch.equal(output(made), output(source))
    assert (made.padding_idx, made.training) == (1, True)
    source.codes.zero_()
    assert made.codes.any()


@pytest.mark.parametrize("twin", [copy.copy, lambda m: QuantEmbeddingBag.from_packed(m.packed)])
def test_shallow_copies_share_the_table(twin):
    source = module(parts=("mean",))
    made = twin(source)
    source.load_state_dict(module(parts=("mean",), seed=1).state_dict())
    assert torch.equal(made.weight, source.weight)
    assert torch.equal(source.weight, module(parts=("mean",), seed=1).weight)


def test_loading_into_a_deep_copy_leaves_the_original():
    source = module()
    copy.deepcopy(source).load_state_dict(module(seed=1).state_dict())
    assert torch.equal(source.weight, module().weight)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_stacked_modules_run_under_vmap_and_share_nothing():
    modules = [module(parts=("row_scale",), seed=seed) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(modules)
    skeleton = copy.deepcopy(modules[0]).to("meta")

    def run(buffers, ids):
        return torch.func.functional_call(skeleton, buffers, (ids,))

    rows = torch.vmap(run, in_dims=(0, None))(buffers, torch.arange(30))
    assert parameters == {}
    assert torch.equal(rows, torch.stack([output(one) for one in modules]))
    buffers["codes"].zero_()
    assert modules[0].codes.any()


def test_requesting_gradients_warns():
    with pytest.warns(UserWarning, match="no trainable values"):
        module().requires_grad_()
    assert module().requires_grad_(False).codes.dtype == torch.uint8
