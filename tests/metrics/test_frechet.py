import numpy as np
import pytest
from scipy.linalg import sqrtm

from shortcut_models.errors import InputError
from shortcut_models.metrics.frechet import Gaussian, fit_gaussian, frechet_distance

RNG = np.random.default_rng(0)


def covariance(size: int, rank: int) -> np.ndarray:
    factor = RNG.standard_normal((size, rank))
    return factor @ factor.T / rank


@pytest.mark.parametrize("rank", [6, 12])
def test_the_distance_is_that_of_scipys_matrix_square_root(rank: int) -> None:
    a, b = (Gaussian(RNG.standard_normal(6), covariance(6, rank)) for _ in range(2))
    root = sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-7)


def test_commuting_covariances_have_the_closed_form() -> None:
    basis = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
    p, q = RNG.uniform(0.1, 4, (2, 5))
    mean = RNG.standard_normal((2, 5))
    a, b = (Gaussian(m, (basis * values) @ basis.T) for m, values in zip(mean, (p, q), strict=True))
    expected = np.sum((mean[0] - mean[1]) ** 2) + np.sum((np.sqrt(p) - np.sqrt(q)) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_singular_covariances_have_the_closed_form() -> None:
    # Along u and v there is all variance; tr (S1 S2)^(1/2) is then |u . v|.
    u, v = RNG.standard_normal((2, 8))
    a, b = Gaussian(np.zeros(8), np.outer(u, u)), Gaussian(np.zeros(8), np.outer(v, v))
    assert frechet_distance(a, b) == pytest.approx(u @ u + v @ v - 2 * abs(u @ v), rel=1e-6)
    point = Gaussian(np.ones(8), np.zeros((8, 8)))
    assert frechet_distance(a, point) == pytest.approx(u @ u + 8, rel=1e-10)


@pytest.mark.parametrize("rank", [2, 30])
def test_a_gaussian_is_at_no_distance_from_itself(rank: int) -> None:
    same = Gaussian(RNG.standard_normal(20), covariance(20, rank))
    assert 0 <= frechet_distance(same, same) < 1e-6


def test_mean_and_unbiased_covariance_are_those_of_a_slow_loop() -> None:
    features = RNG.standard_normal((7, 3)).astype(np.float32)
    found = fit_gaussian(features)
    assert found.mean.dtype == found.covariance.dtype == np.float64
    mean = [sum(float(row[i]) for row in features) / 7 for i in range(3)]
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    for i in range(3):
        for j in range(3):
            expected = sum((float(r[i]) - mean[i]) * (float(r[j]) - mean[j]) for r in features) / 6
            np.testing.assert_allclose(found.covariance[i, j], expected, rtol=1e-10)


def test_a_single_feature_is_a_number_line() -> None:
    a, b = fit_gaussian(np.array([[0.0], [2.0]])), fit_gaussian(np.array([[3.0], [3.0]]))
    assert frechet_distance(a, b) == pytest.approx((3 - 1) ** 2 + 2)


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"cannot be fitted to {count} image\(s\): give at least 2"):
        fit_gaussian(np.zeros((count, 3)))
