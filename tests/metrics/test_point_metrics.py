"""Distances between sets of points."""

import numpy as np
import pytest
from scipy.stats import energy_distance as energy_1d

from shortcut_models import InputError
from shortcut_models.metrics.points import ENERGY, energy_distance, sliced_wasserstein

RNG = np.random.default_rng(0)


def test_on_a_line_the_energy_distance_is_scipys_squared() -> None:
    # SciPy's is the root of twice the integral of squared differences between distribution functions.
    a, b = RNG.standard_normal((40, 1)), RNG.uniform(-1, 3, (33, 1))
    assert energy_distance(a, b) == pytest.approx(energy_1d(a[:, 0], b[:, 0]) ** 2, rel=1e-10)


def test_the_energy_distance_is_a_sum_over_all_pairs() -> None:
    a, b = RNG.standard_normal((5, 2)), RNG.standard_normal((4, 2)) + 1

    def mean(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.mean([[np.sqrt(((x - y) ** 2).sum()) for y in q] for x in p]))

    assert energy_distance(a, b) == pytest.approx(2 * mean(a, b) - mean(a, a) - mean(b, b), rel=1e-12)
    assert energy_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("others", [30, 45, 7])
def test_shifted_points_are_half_the_squared_shift_apart_along_a_random_direction(others: int) -> None:
    # Along a direction at angle a, a shift of length s is s cos(a) long; the mean of cos^2 is 1/2.
    a = RNG.standard_normal((30, 2))
    assert sliced_wasserstein(a, a + np.array([3.0, 4.0])) == pytest.approx(5 / np.sqrt(2), rel=1e-10)
    points = np.repeat(a[:1], others, axis=0)
    to_one = np.mean(np.sum((a - a[:1]) ** 2, axis=1)) / 2
    assert sliced_wasserstein(a, points) == pytest.approx(np.sqrt(to_one), rel=1e-10)


def test_in_more_dimensions_the_directions_are_drawn_once() -> None:
    a = RNG.standard_normal((20, 5))
    shift = np.array([0, 0, 3.0, 0, 0])
    found = sliced_wasserstein(a, a + shift)
    assert found == sliced_wasserstein(a, a + shift)
    assert found == pytest.approx(3 / np.sqrt(5), rel=0.2)


def test_repeating_all_points_changes_nothing() -> None:
    a, b = RNG.standard_normal((6, 2)), RNG.standard_normal((10, 2))
    for distance in (energy_distance, sliced_wasserstein):
        assert distance(np.tile(a, (3, 1)), b) == pytest.approx(distance(a, b), rel=1e-10)
        assert distance(a, b) > 0.01


def test_images_are_not_points() -> None:
    with pytest.raises(InputError, match="measure points, but the samples are 8x8x1: choose metrics of images"):
        ENERGY.features.check((8, 8, 1))
