import pytest
import torch
from torch import nn

from smallfry.compress import quantize
from smallfry.errors import InputError
from smallfry.nn import QuantEmbedding, QuantEmbeddingBag, quantize_embed
from smallfry.sfq import file as sfq

LEARNED = {"codebook_kind": "trellis", "center": True, "row_scale": True}


def weight():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, 24, generator=generator) * torch.rand(400, 1, generator=generator) + 0.5


def test_learned_table_has_less_error_in_about_as_many_bytes():
    plain = QuantEmbedding(400, 24, _weight=weight(), nbit=2)
    learned = QuantEmbedding(400, 24, _weight=weight(), nbit=2, **LEARNED)
    assert learned.frobenius_error < 0.8 * plain.frobenius_error
    assert learned.codes.shape == plain.codes.shape
    assert torch.equal(
        learned.weight.clone(), torch.from_numpy(quantize(weight().numpy(), 2, **LEARNED).decode())
    )


def test_learned_table_survives_a_state_dict_and_a_file(tmp_path):
    learned = QuantEmbedding(400, 24, _weight=weight(), nbit=2, **LEARNED)
    loaded = QuantEmbedding(400, 24, nbit=2)
    loaded.load_state_dict(learned.state_dict())
    learned.to_sfq(tmp_path / "learned.sfq")
    for twin in (loaded, QuantEmbedding.from_sfq(tmp_path / "learned.sfq")):
        assert torch.equal(twin.weight, learned.weight)


def test_bag_sums_a_learned_table():
    bag = QuantEmbeddingBag(400, 24, mode="sum", _weight=weight(), nbit=2, **LEARNED)
    ids = torch.randint(0, 400, (5, 20))
    torch.testing.assert_close(bag(ids), bag.weight.clone()[ids].sum(1))


def test_quantize_embed_learns_every_table():
    model = nn.ModuleDict({"a": nn.Embedding(50, 8), "b": nn.EmbeddingBag(50, 8)})
    quantize_embed(model, nbit=4, codebook_kind="trellis")
    assert {tuple(model[name].codebook.shape) for name in ("a", "b")} == {(256,)}


def test_embedding_file_is_learned(tmp_path):
    rows = "".join(
        f"w{row} {' '.join(map(str, row_values))}\n" for row, row_values in enumerate(weight().tolist())
    )
    (tmp_path / "vectors.txt").write_text(rows)
    learned = QuantEmbedding(400, 24, nbit=2, embedding_file=tmp_path / "vectors.txt", **LEARNED)
    expected = QuantEmbedding(400, 24, nbit=2, _weight=weight(), **LEARNED)
    assert torch.equal(learned.weight, expected.weight)


def test_rotation_is_rejected_because_it_changes_the_basis():
    with pytest.raises(InputError, match="rotate changes the basis"):
        QuantEmbedding(400, 24, _weight=weight(), nbit=2, rotate=True)


def test_unknown_option_is_rejected():
    with pytest.raises(TypeError, match="unexpected argument 'nbits'"):
        QuantEmbedding(400, 24, nbits=2)


def test_rotated_file_keeps_its_basis(tmp_path):
    table = quantize(weight().numpy(), 4, codebook_kind="trellis", rotate=True)
    sfq.write(tmp_path / "rotated.sfq", table)
    module = QuantEmbedding.from_sfq(tmp_path / "rotated.sfq")
    assert torch.equal(module.weight.clone(), torch.from_numpy(table.decode()))
    back = module.weight @ torch.from_numpy(module.rotation).T
    assert (back - weight()).norm() < 0.1 * weight().norm()
    module.to_sfq(tmp_path / "again.sfq")
    again = sfq.map(tmp_path / "again.sfq").table
    assert (again.rotation == table.rotation).all()
    assert (again.decode() == table.decode()).all()
