"""Distances and scores against what independent programs gave for the same vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from shortcut_models import InputError
from shortcut_models.errors import check_whole
from shortcut_models.metrics import (
    density_coverage,
    frechet,
    inception_score,
    kid,
    kid_subsets,
    neighbours,
    precision_recall,
    scores,
)
from shortcut_models.metrics.gaussian import fit_gaussian, frechet_distance

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
NUMBERS: dict[str, Any] = json.loads((GOLDEN / "metrics.json").read_text())
SETS = dict(np.load(GOLDEN / "statistics.npz"))
PAIRS = {
    "main": (SETS["fake"], SETS["real"]),
    "singular": (SETS["singular_fake"], SETS["singular_real"]),
    "singular_vs_full": (SETS["singular_fake"], SETS["real"]),
    "ties": (SETS["ties_fake"], SETS["ties_real"]),
    "identical": (SETS["real"], SETS["real"]),
}
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("pair", PAIRS)
def test_frechet_is_that_of_the_singular_values_of_the_samples(pair: str) -> None:
    expected = NUMBERS["frechet"][pair]["svd_of_centred_samples_float64"]
    relative, absolute = (1e-8, 0) if pair in ("main", "ties") else (0, 1e-10 if pair == "identical" else 1e-5)
    assert frechet(*PAIRS[pair]) == pytest.approx(expected, rel=relative, abs=absolute)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_paper_adds_its_offset_inside_the_root(pair: str) -> None:
    gaussians = [fit_gaussian(vectors) for vectors in PAIRS[pair]]
    expected = NUMBERS["frechet"][pair]["scipy_1.17.1_sqrtm_with_1e-6"]
    assert frechet_distance(*gaussians, offset=1e-6) == pytest.approx(expected, rel=1e-8, abs=2e-5)


@pytest.mark.parametrize("pair", ["main", "singular", "singular_vs_full", "ties"])
def test_kid_is_the_closed_form_over_all_pairs(pair: str) -> None:
    expected = NUMBERS["kid"]["exact_unbiased_all_pairs_float64"][pair]
    assert kid(*PAIRS[pair]) == pytest.approx(expected, rel=1e-10)


def test_kid_by_subsets_draws_as_torch_fidelity_does() -> None:
    fake, real = PAIRS["main"]
    golden = NUMBERS["kid"]["torch_fidelity_poly"]
    mean, deviation = kid_subsets(fake, real, subsets=10, subset_size=200)
    assert mean == pytest.approx(np.mean(golden["per_subset_float64"]), rel=1e-10)
    assert deviation == pytest.approx(np.std(golden["per_subset_float64"]), rel=1e-10)
    assert mean == pytest.approx(golden["mean"], abs=5e-6)
    assert deviation == pytest.approx(golden["std"], abs=5e-6)
    assert kid_subsets(fake, real, subsets=3, subset_size=50, seed=1) != kid_subsets(fake, real, 3, 50, 2)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("pair", ["main", "singular", "singular_vs_full", "ties"])
@pytest.mark.parametrize("rows", [512, 7])
def test_neighbours_are_those_of_the_programs(pair: str, k: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", rows)
    golden = NUMBERS["precision_recall_density_coverage"][pair][f"k={k}"]
    on_the_surface, strictly = golden["cdist_float64"]["le"], golden["prdc"]
    assert precision_recall(*PAIRS[pair], k=k) == (on_the_surface["precision"], on_the_surface["recall"])
    assert density_coverage(*PAIRS[pair], k=k) == pytest.approx((strictly["density"], strictly["coverage"]), rel=1e-12)


def test_duplicates_tie_exactly_far_from_zero() -> None:
    # The balls of duplicates have radius 0: a product of matrices alone would decide them by its rounding.
    real = 100 + np.repeat(RNG.standard_normal((9, 33)), 4, axis=0)
    fake = np.concatenate([real[::4], 100 + RNG.standard_normal((20, 33))])
    distances = cdist(fake, real)
    radii, own = (np.sort(cdist(a, a))[:, 3] for a in (real, fake))
    assert not radii.any()
    assert precision_recall(fake, real) == (9 / 29, (distances <= own[:, None]).any(axis=0).mean())
    assert density_coverage(fake, real, k=3) == (0, 0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equal_vectors_count_as_often_as_they_are_given(k: int) -> None:
    # Whole numbers, so that every distance and every tie is exact in a slow count too.
    for _ in range(20):
        fake, real = (RNG.integers(-2, 3, (size, 3)).astype(float) for size in RNG.integers(9, 60, 2))
        fake[: len(fake) // 2] = fake[0]
        distances = cdist(fake, real, "sqeuclidean")
        of_fake, of_real = (np.sort(cdist(a, a, "sqeuclidean"))[:, k] for a in (fake, real))
        surface, inside = distances <= of_real, distances < of_real
        expected = surface.any(axis=1).mean(), (distances <= of_fake[:, None]).any(axis=0).mean()
        assert precision_recall(fake, real, k) == expected
        assert density_coverage(fake, real, k) == (inside.sum() / (k * len(fake)), inside.any(axis=0).mean())


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_a_collapsed_model_is_measured_by_few_pairs(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Equal rows, and rows that differ as float32 rounds, once took the sum of squares of every pair.
    pairs, exact = [], neighbours._exact
    monkeypatch.setattr(neighbours, "_exact", lambda *given: pairs.append(len(given[1])) or exact(*given))
    fake = 20 + RNG.standard_normal(64) * np.ones((1000, 1)) + noise * RNG.standard_normal((1000, 64))
    real = 20 + RNG.standard_normal((200, 64))
    assert precision_recall(np.concatenate([fake, real[:10]]), real)[1] >= 10 / 200
    density_coverage(fake, real)
    assert sum(pairs) < 20_000


def test_nearest_centres_are_those_of_all_distances() -> None:
    a, b = RNG.standard_normal((30, 5)), RNG.standard_normal((20, 5))
    expected = np.sort(cdist(a, b, "sqeuclidean"))[:, :2]
    np.testing.assert_allclose(neighbours.nearest_squared(a, b, 2), expected, rtol=1e-12)


@pytest.mark.parametrize("splits", [1, 10])
def test_the_inception_score_is_that_of_torch_fidelity(splits: int) -> None:
    golden = NUMBERS["inception_score"][f"torch_fidelity_splits{splits}_in_order"]
    mean, deviation = inception_score(SETS["logits"], splits)
    assert mean == pytest.approx(golden["mean"], rel=1e-10)
    assert deviation == pytest.approx(golden["std"], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("size", [5000, 150])
def test_the_inception_score_in_chunks_is_that_of_adm(size: int) -> None:
    expected = NUMBERS["inception_score"][f"adm_evaluator_split_size_{size}"]
    assert scores.chunked_score(SETS["logits"], size) == pytest.approx(expected, rel=1e-6)


def test_probabilities_that_underflow_count_as_nothing() -> None:
    logits = np.array([[0.0, -2000.0, -4000.0], [-2000.0, 0.0, -4000.0]])
    assert inception_score(logits, 1)[0] == pytest.approx(2)


def test_vectors_that_cannot_be_compared_are_refused() -> None:
    some, nan = np.ones((5, 3)), np.full((5, 3), np.nan)
    for function in (frechet, kid, precision_recall):
        with pytest.raises(InputError, match="vectors of 3 features cannot be compared with vectors of 4"):
            function(some, np.ones((5, 4)))
        with pytest.raises(InputError, match="real holds NaN or infinite numbers"):
            function(some, nan)
        with pytest.raises(InputError, match=r"fake has shape \(1, 3\), but must be \(n, features\) with n at least"):
            function(some[:1], some)
    with pytest.raises(InputError, match="n at least 6"):
        density_coverage(some, some)
    with pytest.raises(InputError, match="subset_size is 6, but there are 5 fake and 7 real vectors"):
        kid_subsets(some, np.ones((7, 3)), 3, 6)
    for logits, words in (
        (some, r"splits is 10, but there are logits of 5 image\(s\)"),
        (some[0], r"logits has shape \(3,\), but must be \(n, classes\)"),
        (np.full((20, 3), np.inf), "holds NaN or infinite"),
    ):
        with pytest.raises(InputError, match=words):
            inception_score(logits)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.ones((5, 0)), r"fake has shape \(5, 0\), but must be"),
        (np.full((5, 3), "a"), "fake has the type <U1, but must hold real numbers"),
        (np.ones((5, 3)) + 1j, "fake has the type complex128"),
        (None, "fake has the type object"),
        ([[1.0, 2.0], [3.0]], "fake is no array"),
        (np.full((6, 3), 1e31), r"fake holds numbers beyond 1e\+30"),
    ],
)
def test_what_are_no_vectors_of_numbers_is_refused(given: Any, words: str) -> None:
    for function in (frechet, kid, kid_subsets, precision_recall, density_coverage):
        with pytest.raises(InputError, match=words):
            function(given, np.ones((6, 3)))
    with pytest.raises(InputError, match=words.replace("fake", "logits")):
        inception_score(given)


@pytest.mark.parametrize("wrong", [2.0, "3", None, np.bool_(True)])
def test_what_is_no_whole_number_is_refused(wrong: Any) -> None:
    shown = str(wrong) if isinstance(wrong, np.bool_) else repr(wrong)
    with pytest.raises(InputError, match=f"^k is {shown}, but must be a whole number from 1 up"):
        check_whole("k", wrong, 1)
    check_whole("k", np.int64(3), 1, 3)


@pytest.mark.parametrize("wrong", [0, True])
def test_counts_are_whole_numbers(wrong: Any) -> None:
    some = np.ones((9, 3))
    for name, call in (
        ("k", lambda: precision_recall(some, some, wrong)),
        ("k", lambda: density_coverage(some, some, wrong)),
        ("subsets", lambda: kid_subsets(some, some, wrong, 3)),
        ("subset_size", lambda: kid_subsets(some, some, 3, wrong)),
        ("splits", lambda: inception_score(some, wrong)),
    ):
        with pytest.raises(InputError, match=f"^{name} is {wrong}, but must be a whole number from"):
            call()
    with pytest.raises(InputError, match="seed is -1, but must be a whole number between 0 and 4294967295"):
        kid_subsets(some, some, 3, 3, -1)


def test_lists_and_all_types_of_numbers_are_taken() -> None:
    fake, real = RNG.integers(0, 9, (30, 4)), RNG.integers(0, 9, (20, 4))
    expected = frechet(fake.astype(float), real.astype(float))
    for cast in (np.uint8, np.float16, np.asfortranarray, np.ndarray.tolist):
        given: Any = cast
        assert frechet(given(fake), given(real)) == pytest.approx(expected, rel=1e-12)
    found = density_coverage(fake, real)
    assert [type(number) for number in found] == [float, float]
