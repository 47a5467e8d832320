import numpy as np
import pytest

from smallfry.quantization.rotation import principal


@pytest.mark.parametrize("dim", [1, 3, 12, 13, 64])
def test_principal_basis_spreads_the_variance_over_8_positions(dim):
    variances = 2.0 ** -np.arange(dim)
    matrix = principal(np.diag(variances), seed=0)
    turned = matrix.T @ np.diag(variances) @ matrix
    start = 0
    for position in range(min(8, dim)):
        width = len(range(position, dim, 8))
        assert np.diag(turned)[position::8].sum() == pytest.approx(variances[start : start + width].sum())
        start += width
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), atol=1e-5)


def test_principal_basis_depends_on_the_seed():
    covariance = np.diag(np.arange(1.0, 21))
    np.testing.assert_array_equal(principal(covariance, 5), principal(covariance, 5))
    assert (principal(covariance, 5) != principal(covariance, 6)).any()
