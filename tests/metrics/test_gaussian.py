"""Gaussians fitted to streamed vectors, and the distance between two."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from shortcut_models.errors import InputError
from shortcut_models.metrics.gaussian import (
    FRECHET_PIXELS,
    Gaussian,
    add_vectors,
    bias,
    bias_of,
    covariance,
    fit_gaussian,
    frechet_distance,
    frechet_infinity,
    gaussian_of,
    start_sums,
)

RNG = np.random.default_rng(0)


def random_covariance(size: int, rank: int) -> np.ndarray:
    factor = RNG.standard_normal((size, rank))
    return factor @ factor.T / rank


@pytest.mark.parametrize("rank", [6, 12])
def test_the_distance_is_that_of_scipys_matrix_square_root(rank: int) -> None:
    a, b = (Gaussian(RNG.standard_normal(6), random_covariance(6, rank)) for _ in range(2))
    root = sqrtm(covariance(a) @ covariance(b))
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(covariance(a) + covariance(b) - 2 * root.real)
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


@pytest.mark.parametrize("scale", [1, 10])
def test_features_of_low_rank_have_the_distance_of_their_own_space(scale: float) -> None:
    # Eigenvalues of 1e-16 that should be 0 would take 3e-6 of 40 off, or 3e-4 of 4,000 at ten times the scale.
    mixing, basis = RNG.standard_normal((40, 40)) / 12, np.linalg.qr(RNG.standard_normal((256, 40)))[0].T
    a, b = scale * RNG.standard_normal((2, 300, 40))
    expected = frechet_distance(fit_gaussian(a), fit_gaussian(b @ mixing))
    found = [fit_gaussian(vectors @ basis) for vectors in (a, b @ mixing)]
    assert all(gaussian.factor is None for gaussian in found)
    assert frechet_distance(found[0], found[1]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("least", [1e-4, 1e-8, 1e-12])
def test_small_variances_count_as_far_as_they_are_known(least: float) -> None:
    # All 128 roots count: those of the smallest 40 at 1e-12 come to 3e-4, and none is taken for rounding.
    p = np.geomspace(1, least, 128)
    basis = np.linalg.qr(RNG.standard_normal((128, 128)))[0]
    for q in (1.3 * p, p[::-1]):
        a, b = (Gaussian(np.zeros(128), (basis * values) @ basis.T) for values in (p, q))
        assert frechet_distance(a, b) == pytest.approx(np.sum((np.sqrt(p) - np.sqrt(q)) ** 2), rel=1e-10)


@pytest.mark.parametrize("rank", [2, 30])
def test_a_gaussian_is_at_no_distance_from_itself(rank: int) -> None:
    same = Gaussian(RNG.standard_normal(20), random_covariance(20, rank))
    assert 0 <= frechet_distance(same, same) < 1e-6


def test_mean_and_unbiased_covariance_are_those_of_a_slow_loop() -> None:
    features = RNG.standard_normal((7, 3)).astype(np.float32)
    found = fit_gaussian(features)
    assert found.mean.dtype == covariance(found).dtype == np.float64
    mean = [sum(float(row[i]) for row in features) / 7 for i in range(3)]
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    for i in range(3):
        for j in range(3):
            expected = sum((float(r[i]) - mean[i]) * (float(r[j]) - mean[j]) for r in features) / 6
            np.testing.assert_allclose(covariance(found)[i, j], expected, rtol=1e-10)


def test_a_single_feature_is_a_number_line() -> None:
    a, b = fit_gaussian(np.array([[0.0], [2.0]])), fit_gaussian(np.array([[3.0], [3.0]]))
    assert frechet_distance(a, b) == pytest.approx((3 - 1) ** 2 + 2)


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"cannot be fitted to {count} sample\(s\): give at least 2"):
        fit_gaussian(np.zeros((count, 3)))


@pytest.mark.parametrize("chunks", [(30,), (1, 29), (10, 0, 3, 17), (3, 3, 24)])
@pytest.mark.parametrize("size", [5, 40])
def test_any_chunks_give_the_same_gaussian(chunks: tuple[int, ...], size: int) -> None:
    # Far from zero, where sums of squares that are not centred lose all digits.
    vectors = 1e4 + RNG.standard_normal((30, size))
    sums, start = start_sums(), 0
    for count in chunks:
        sums = add_vectors(sums, vectors[start : start + count])
        start += count
    assert int(sums["count"]) == 30
    found = gaussian_of(sums)
    np.testing.assert_allclose(found.mean, vectors.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance(found), np.cov(vectors, rowvar=False), rtol=1e-9, atol=1e-10)


def test_memory_does_not_grow_with_the_number_of_vectors() -> None:
    sums = start_sums()
    for count in (3, 3, 100, 1000):
        sums = add_vectors(sums, RNG.standard_normal((count, 8)))
        assert sum(np.size(array) for array in sums.values()) <= 1 + 8 + 8 * 8
    assert set(sums) == {"count", "mean", "scatter"}


@pytest.mark.parametrize(("some", "others"), [(6, 6), (6, 50), (50, 6), (50, 50), (12, 12), (2, 13)])
def test_few_vectors_give_the_distance_of_their_covariances(some: int, others: int) -> None:
    mixing = RNG.standard_normal((12, 12))
    a, b = RNG.standard_normal((some, 12)) @ mixing, RNG.standard_normal((others, 12)) + 1
    plain = [Gaussian(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b)]
    given = [fit_gaussian(x) for x in (a, b)]
    assert (given[0].factor is None, given[1].factor is None) == (some >= 12, others >= 12)
    assert frechet_distance(given[0], given[1]) == pytest.approx(frechet_distance(plain[0], plain[1]), rel=1e-6)


def test_the_offset_is_inside_the_root_alone() -> None:
    a, b = fit_gaussian(RNG.standard_normal((30, 5))), fit_gaussian(RNG.standard_normal((40, 5)))
    eye = 0.1 * np.eye(5)
    shifted = frechet_distance(Gaussian(a.mean, covariance(a) + eye), Gaussian(b.mean, covariance(b) + eye))
    assert frechet_distance(a, b, offset=0.1) == pytest.approx(shifted - 2 * 0.1 * 5, rel=1e-9)
    assert frechet_distance(a, a, offset=1e-6) == pytest.approx(-2e-6 * 5, rel=1e-4)
    few = fit_gaussian(RNG.standard_normal((3, 5)))
    assert frechet_distance(few, few, offset=1e-6) == pytest.approx(-2e-6 * 5, rel=1e-2)


def test_vectors_of_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="vectors of 3 features cannot be compared with vectors of 4"):
        frechet_distance(fit_gaussian(np.eye(3)), fit_gaussian(np.eye(4)))


def test_the_sums_that_are_given_are_not_changed() -> None:
    before = FRECHET_PIXELS.add(FRECHET_PIXELS.empty(), {"vector": np.eye(3, dtype=np.float32)}, np.zeros(3))
    kept = {name: np.copy(array) for name, array in before.items()}
    FRECHET_PIXELS.add(before, {"vector": np.ones((4, 3), np.float32)}, np.zeros(4))
    assert all(np.array_equal(before[name], kept[name]) for name in kept)


def test_the_bias_of_a_perfect_model_is_that_of_drawn_gaussians() -> None:
    spectrum = 1 / np.arange(1, 17)
    real = Gaussian(np.zeros(16), np.diag(spectrum))
    drawn = [
        frechet_distance(fit_gaussian(RNG.standard_normal((400, 16)) * np.sqrt(spectrum)), real) for _ in range(60)
    ]
    assert bias(real, 400) == pytest.approx(np.mean(drawn), rel=0.08)
    assert bias(real, 800) == pytest.approx(bias(real, 400) / 2)


def test_the_bias_of_a_long_spectrum_is_the_published_one() -> None:
    # Of 2,048 features whose variances fall as 1 / i, 150 in all: 26,075 by the number of samples.
    spectrum = 1 / np.arange(1, 2049)
    assert bias_of(spectrum * 150 / spectrum.sum(), 1) == pytest.approx(26_075, rel=1e-4)


def test_the_bias_is_the_same_from_few_vectors() -> None:
    vectors = RNG.standard_normal((5, 9))
    assert bias(fit_gaussian(vectors), 7) == pytest.approx(
        bias(Gaussian(np.zeros(9), np.cov(vectors, rowvar=False)), 7), rel=1e-6
    )


def test_the_distance_at_infinity_has_no_bias_of_the_samples() -> None:
    fake = RNG.standard_normal((3000, 12)) + 0.1
    real = Gaussian(np.zeros(12), np.eye(12))
    found = frechet_infinity(fake, real)
    assert found == pytest.approx(12 * 0.01, abs=0.02)
    assert found < frechet_distance(fit_gaussian(fake[:300]), real)
    assert found == frechet_infinity(fake, real)
    with pytest.raises(InputError, match="frechet_infinity takes at least 30 vectors, not 29"):
        frechet_infinity(fake[:29], real)
