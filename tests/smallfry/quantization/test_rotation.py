import numpy as np
import pytest

from smallfry.quantization.rotation import Rotation, principal


@pytest.mark.parametrize("kind", ["orthogonal", "hadamard"])
@pytest.mark.parametrize("dim", [1, 2, 7, 64, 300])
def test_rotation_keeps_dot_products_and_can_be_undone(kind, dim):
    rotation = Rotation(kind, 5, dim)
    vectors = np.random.default_rng(0).standard_normal((20, dim)).astype(np.float32)
    turned = rotation.apply(vectors)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=2e-3)
    np.testing.assert_allclose(rotation.undo(turned), vectors, atol=1e-4)


@pytest.mark.parametrize("kind", ["orthogonal", "hadamard"])
def test_rotation_depends_on_the_seed_only(kind):
    np.testing.assert_array_equal(Rotation(kind, 5, 12).matrix, Rotation(kind, 5, 12).matrix)
    assert (Rotation(kind, 5, 12).matrix != Rotation(kind, 6, 12).matrix).any()


def test_rotation_of_a_seed_never_changes():
    hadamard = Rotation("hadamard", 7, 4).matrix
    np.testing.assert_array_equal(np.abs(hadamard), 0.5)
    assert Rotation("orthogonal", 7, 3).matrix == pytest.approx(ORTHOGONAL_7_3, abs=1e-6)
    np.testing.assert_array_equal(np.sign(hadamard), HADAMARD_7_4)


@pytest.mark.parametrize("kind", ["orthogonal", "hadamard"])
def test_rotation_spreads_the_variance_of_one_column(kind):
    turned = Rotation(kind, 0, 256).apply(np.eye(256, dtype=np.float32)[:1])
    assert np.abs(turned).max() < 0.5


@pytest.mark.parametrize(("dim", "group"), [(12, 4), (13, 4), (3, 8), (6, 1)])
def test_principal_rotation_spreads_the_variance_over_each_group(dim, group):
    variances = 2.0 ** -np.arange(dim)
    rotation = principal(np.diag(variances), group, seed=0)
    turned = rotation.matrix.T @ np.diag(variances) @ rotation.matrix
    start = 0
    for position in range(min(group, dim)):
        width = len(range(position, dim, group))
        assert np.diag(turned)[position::group].sum() == pytest.approx(variances[start : start + width].sum())
        start += width
    np.testing.assert_allclose(rotation.matrix @ rotation.matrix.T, np.eye(dim), atol=1e-5)


ORTHOGONAL_7_3 = np.array(
    [
        [-0.2965659, -0.2055068, -0.9326391],
        [-0.0164938, -0.9753249, 0.2201574],
        [-0.9548699, 0.0806739, 0.2858585],
    ]
)
HADAMARD_7_4 = [[1, 1, -1, 1], [1, -1, -1, -1], [1, -1, 1, 1], [-1, -1, -1, 1]]
