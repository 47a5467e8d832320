import numpy as np
import pytest

from smallfry.evaluation.lloyd_max import lloyd_max


def test_levels_of_normal_values_are_the_known_ones():
    values = np.random.default_rng(0).standard_normal(1_000_000)
    assert lloyd_max(values, 2) == pytest.approx(np.array([-1, 1]) * np.sqrt(2 / np.pi), abs=2e-3)
    assert lloyd_max(values, 4) == pytest.approx([-1.510, -0.453, 0.453, 1.510], abs=1e-2)


def test_few_distinct_values_are_their_own_levels():
    assert lloyd_max(np.array([3.0, 1.0, 1.0, 3.0]), 4).tolist() == [1, 3, 3, 3]
    assert lloyd_max(np.full(5, 7.0), 2).tolist() == [7, 7]
