import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from smallfry.nn.kernels import cpu, operators, products, torch_impl
from smallfry.nn.packed import Packed
from smallfry.table import KINDS as WIDTHS
from smallfry.table import NBITS, STATE_BITS
from tests.helpers.tables import DIMS, KINDS, plain_decode, random_table

PARTS = ((), ("zero_rows",), ("mean", "column_scale", "row_scale", "zero_rows"))


def packed_table(nbit, kind=None, dim=13, rows=40, parts=("zero_rows",)):
    return Packed.from_table(random_table(rows, dim, nbit, kind or KINDS[nbit][0], parts=parts))


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(("nbit", "kind"), [(nbit, kind) for nbit in NBITS for kind in KINDS[nbit]])
def test_both_paths_give_the_bits_of_the_table(nbit, kind, parts):
    table = random_table(40, 13, nbit, kind, parts=parts)
    packed = Packed.from_table(table)
    ids = torch.randint(0, 40, (5, 6))
    expected = torch.from_numpy(plain_decode(table))[ids]
    assert torch.equal(operators.decode(ids, packed).view(torch.int32), expected.view(torch.int32))
    assert torch.equal(torch_impl.decode(ids, packed).view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("state_bits", STATE_BITS)
@pytest.mark.parametrize("nbit", WIDTHS["trellis"])
def test_windows_of_a_trellis_wrap_at_the_last_bit_of_the_ring(nbit, state_bits):
    shortest = -(-state_bits // nbit)
    for dim in (shortest, shortest + 1, 300, 301):
        table = random_table(40, dim, nbit, "trellis", state_bits=state_bits)
        packed, ids = Packed.from_table(table), torch.arange(40)
        assert torch.equal(torch_impl.decode(ids, packed), torch.from_numpy(plain_decode(table)))
        assert packed.to_table().codebook_kind == "trellis"


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 29), max_size=40),
    nbit=st.sampled_from(NBITS),
    dim=st.sampled_from(DIMS),
    dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_any_ids_decode_alike_on_both_paths(ids, nbit, dim, dtype):
    packed = packed_table(nbit, dim=dim, rows=30)
    ids = torch.tensor(ids, dtype=dtype)
    assert torch.equal(operators.decode(ids, packed), torch_impl.decode(ids, packed))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 2, 3, 4)])
def test_rows_come_in_the_shape_of_the_ids(shape):
    rows = operators.decode(torch.zeros(shape, dtype=torch.int64), packed_table(2))
    assert rows.shape == (*shape, 13)


def test_ids_need_not_be_contiguous():
    packed = packed_table(4)
    ids = torch.arange(40).reshape(8, 5)
    assert torch.equal(operators.decode(ids.T, packed), operators.decode(ids, packed).transpose(0, 1))


@pytest.mark.parametrize("nbit", NBITS)
@pytest.mark.parametrize("bad", [-1, 40, 2**31 - 1])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_id_out_of_range_is_an_index_error(nbit, bad, dtype):
    with pytest.raises(IndexError, match="out of range"):
        operators.decode(torch.tensor([0, bad], dtype=dtype), packed_table(nbit))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8, torch.int16])
def test_ids_of_another_dtype_are_rejected(dtype):
    with pytest.raises(TypeError, match=r"expected torch\.int64 or torch\.int32"):
        operators.decode(torch.zeros(3, dtype=dtype), packed_table(2))


@pytest.mark.parametrize("nbit", [2, 32])
def test_gradient_of_the_table_is_rejected(nbit):
    packed = packed_table(nbit)
    (packed.codes if nbit == 32 else packed.codebook).requires_grad_(True)
    with pytest.raises(NotImplementedError, match="packed table requires a gradient"):
        operators.decode(torch.tensor([0]), packed)


def test_defaults_of_torch_change_nothing():
    ids, expected = torch.arange(40), operators.decode_all(packed_table(2))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            packed = packed_table(2)
            assert torch.equal(operators.decode(ids, packed), expected)
            assert torch.equal(torch_impl.decode(ids, packed), expected)
    finally:
        torch.set_default_dtype(before)


def test_codebook_written_to_in_place_is_seen():
    packed = packed_table(2)
    ids = torch.arange(40)
    before = operators.decode(ids, packed)
    packed.codebook.mul_(2)
    assert torch.equal(operators.decode(ids, packed), before * 2)


def test_table_is_forgotten_with_its_codes():
    packed = packed_table(2)
    before = len(cpu._decoders)
    operators.decode(torch.arange(3), packed)
    assert len(cpu._decoders) == before + 1
    del packed
    assert len(cpu._decoders) == before


def test_tensors_of_inference_mode_decode():
    with torch.inference_mode():
        packed = Packed(
            *(part.clone() if isinstance(part, torch.Tensor) else part for part in packed_table(2))
        )
        rows = operators.decode(torch.arange(40), packed)
    assert torch.equal(rows, operators.decode(torch.arange(40), packed_table(2)))


@pytest.mark.parametrize("nbit", [1, 3, 8, 16, 32])
def test_operators_keep_the_rules_of_torch_library(nbit):
    packed = packed_table(nbit, parts=("mean", "column_scale", "row_scale", "zero_rows"))
    ids = torch.arange(6)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.smallfry.decode.default, (ids, *packed), test_utils=checks)
    torch.library.opcheck(
        torch.ops.smallfry.bag.default,
        (ids, torch.tensor([0, 2]), torch.rand(6), *packed, "sum", -1, False),
        test_utils=checks,
    )
    torch.library.opcheck(torch.ops.smallfry.linear.default, (torch.randn(2, 13), *packed), test_utils=checks)


def test_meta_tensors_give_the_shape_without_the_table():
    packed = Packed.empty(1000, 13, 4, "meta", torch.bfloat16)
    rows = operators.decode(torch.empty(2, 3, dtype=torch.int64, device="meta"), packed)
    assert (rows.shape, rows.dtype, rows.device.type) == ((2, 3, 13), torch.bfloat16, "meta")


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.1)]
)
@pytest.mark.parametrize("nbit", [2, 32])
def test_linear_multiplies_by_the_decoded_table(monkeypatch, nbit, dtype, tolerance):
    monkeypatch.setattr(products, "_CHUNK_VALUES", 13 * 7)
    packed = packed_table(nbit).astype(dtype)
    weight = operators.decode_all(packed)
    ours, theirs = (torch.randn(3, 2, 13, dtype=dtype).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    product, expected = operators.linear(ours, packed), nn.functional.linear(theirs, weight)
    # One rounding of bfloat16 is up to 1/128 of a value.
    relative = 1 / 128 if dtype == torch.bfloat16 else 0
    torch.testing.assert_close(product, expected, atol=tolerance, rtol=relative)
    gradient = torch.randn_like(product)
    product.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=tolerance, rtol=relative)


def calls(packed):
    ids, states = torch.arange(3), torch.randn(3, 13)
    yield lambda to: operators.decode(ids.to(to), packed)
    yield lambda to: operators.bag(ids.to(to), torch.tensor([0]), None, packed, "sum", -1, False)
    yield lambda to: operators.bag(ids, torch.tensor([0]), torch.ones(3, device=to), packed, "sum", -1, False)
    yield lambda to: operators.linear(states.to(to), packed)
    yield lambda to: torch.ops.smallfry.linear_backward(torch.randn(2, 40, device=to), *packed)


@pytest.mark.parametrize(
    "part", ["all", "codes", "codebook", "mean", "column_scale", "row_scale", "zero_rows"]
)
def test_table_and_input_on_different_devices_are_rejected(part):
    packed = packed_table(4, "trellis", parts=("mean", "column_scale", "row_scale", "zero_rows"))
    for call in calls(packed):
        with pytest.raises(RuntimeError, match=r"table is on cpu, .* on meta\. Please move"):
            call("meta")
    moved = (
        packed.to("meta") if part == "all" else packed._replace(**{part: getattr(packed, part).to("meta")})
    )
    for call in calls(moved):
        with pytest.raises(RuntimeError, match=r"the table is on .*meta"):
            call("cpu")


def test_linear_on_meta_gives_the_shape():
    packed = packed_table(4).to("meta")
    assert operators.linear(torch.empty(2, 13, device="meta"), packed).shape == (2, 40)


@pytest.mark.parametrize("shape", [(), (12,), (2, 14), (3, 1), (13, 2)])
def test_linear_rejects_another_size(shape):
    with pytest.raises(RuntimeError, match=r"input has shape .*, expected 13 values in its last axis"):
        operators.linear(torch.zeros(shape), packed_table(4))


DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.bool,
    torch.complex64,
)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("table", DTYPES[:4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_takes_the_dtypes_of_torch(dtype, table, autocast):
    packed = packed_table(4).astype(table)
    states = torch.ones(2, 13, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        try:
            expected = nn.functional.linear(states, operators.decode_all(packed))
        except RuntimeError:
            with pytest.raises(RuntimeError, match=r"input is torch\..*, but the table is"):
                operators.linear(states, packed)
        else:
            product = operators.linear(states, packed)
            torch.testing.assert_close(product, expected, rtol=1e-2, atol=1e-1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_operator_of_linear_rejects_integers(dtype):
    with pytest.raises(RuntimeError, match=f"input is {dtype}"):
        torch.ops.smallfry.linear(torch.ones(2, 13, dtype=dtype), *packed_table(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inputs", [1, cpu._FEW_INPUTS, cpu._FEW_INPUTS + 1])
@pytest.mark.parametrize("parts", [(), ("mean", "column_scale", "row_scale", "zero_rows")])
def test_products_are_as_exact_as_those_of_torch(dtype, inputs, parts):
    packed = packed_table(4, dim=300, rows=500, parts=parts).astype(dtype)
    weight, values = operators.decode_all(packed), torch.randn(40 // inputs, inputs, 300).to(dtype)
    exact = values.double() @ operators.decode_all(packed.astype(torch.float64)).T
    ours = torch.stack([operators.linear(some, packed) for some in values])
    # The error of torch's products of several inputs depends on its threads, that of one input does not.
    if inputs <= cpu._FEW_INPUTS:
        values = values.view(-1, 1, 300)
    theirs = torch.stack([nn.functional.linear(some, weight) for some in values]).view_as(ours)
    assert ours.dtype == dtype
    assert (ours - exact).square().mean() <= 1.05 * (theirs - exact).square().mean()
