import numpy as np
import pytest

from smallfry.errors import InputError
from smallfry.readers.formats.scale import Scale, block_shape, find_scale, find_zero_point, is_auxiliary


def expanded(factors, shape):
    factors = np.asarray(factors, np.float32)
    scale = Scale("s", factors, block_shape("s", factors.shape, shape))
    rows = np.ones(shape, np.float32)
    for row in range(shape[0]):
        scale.multiply(rows[row : row + 1], row)
    return rows


@pytest.mark.parametrize("factors", [3.0, [3.0], [[3.0]]])
def test_one_scale_for_all_values(factors):
    np.testing.assert_array_equal(expanded(factors, (2, 3)), np.full((2, 3), 3))


@pytest.mark.parametrize("factors", [[1, 2, 3], [[1], [2], [3]]])
def test_one_scale_for_each_row(factors):
    np.testing.assert_array_equal(expanded(factors, (3, 2)), [[1, 1], [2, 2], [3, 3]])


@pytest.mark.parametrize(
    ("shape", "blocks", "height", "width"),
    [
        ((300, 260), (3, 3), 128, 128),
        ((256, 128), (2, 1), 128, 128),
        ((5, 96), (5, 3), 1, 32),
        ((6, 10), (3, 2), 2, 5),
        ((4, 6), (1, 6), 4, 1),
    ],
)
def test_one_scale_for_each_block(shape, blocks, height, width):
    factors = np.arange(np.prod(blocks)).reshape(blocks) + 1
    expected = np.kron(factors, np.ones((height, width)))[: shape[0], : shape[1]]
    np.testing.assert_array_equal(expanded(factors, shape), expected)


@pytest.mark.parametrize("shape", [(2,), (6,), (5, 1), (0, 1), (4, 7), (2, 2, 2), (3, 6)])
def test_scale_that_does_not_match_the_matrix_is_rejected(shape):
    with pytest.raises(InputError, match=r"s is a scale of shape .*expected one value, \[4\], \[4, 1\]"):
        block_shape("s", shape, (4, 6))


@pytest.mark.parametrize(
    ("tensor", "scale"),
    [
        ("model.embed_tokens.weight", "model.embed_tokens.weight_scale"),  # compressed-tensors, vLLM
        ("model.embed_tokens.weight", "model.embed_tokens.weight_scale_inv"),  # DeepSeek
        ("model.embed_tokens.weight", "model.embed_tokens.SCB"),  # bitsandbytes
        ("model.embed_tokens.weight", "model.embed_tokens.scale_weight"),  # ComfyUI, Neural Compressor
        ("model.embed_tokens.weight", "model.embed_tokens.weight.scale"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight.scales"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight_scales"),
        ("embed.weight", "embed.scale"),
        ("embed.weight", "embed.scales"),
        ("shared.weight._data", "shared.weight._scale"),  # optimum-quanto
        ("model.embed_tokens._weight_qdata", "model.embed_tokens._weight_scale"),  # torchao
        ("embeddings", "embeddings_scale"),
        ("embeddings", "scale"),
    ],
)
def test_scale_is_found_under_the_names_that_libraries_use(tensor, scale):
    assert find_scale(tensor, {tensor, scale, "other.weight_scale", "other.scale"}) == scale
    assert is_auxiliary(scale)


def test_scale_of_another_layer_or_of_activations_is_not_used():
    names = {"b.weight_scale", "scale", "a.input_scale", "a.norm.scale"}
    assert find_scale("a.weight", names) is None
    assert find_scale("a.norm.embed", names) is None


def test_several_scales_are_rejected():
    with pytest.raises(InputError, match=r"has 2 scales: a\.weight_scale, a\.SCB"):
        find_scale("a.weight", {"a.weight_scale", "a.SCB"})


@pytest.mark.parametrize(
    ("tensor", "zero_point"),
    [
        ("a.weight", "a.weight_zero_point"),
        ("a.weight", "a.qzeros"),
        ("embeddings", "zero_point"),
    ],
)
def test_zero_point_is_found(tensor, zero_point):
    assert find_zero_point(tensor, {zero_point}) == zero_point
    assert find_zero_point(tensor, {"b.weight_zero_point"}) is None
