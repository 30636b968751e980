"""Distances and scores against what independent programs gave for the same vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from shortcut_models import InputError
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
    with pytest.raises(InputError, match="k is 0, but must be at least 1"):
        precision_recall(some, some, 0)
    with pytest.raises(InputError, match=r"subset_size is 6, but must lie between 2 and .* 5"):
        kid_subsets(some, some, 3, 6)
    with pytest.raises(InputError, match="subsets is 0"):
        kid_subsets(some, some, 0, 3)
    for logits, words in ((some, "at least the 10 splits"), (np.full((20, 3), np.inf), "hold NaN or infinite")):
        with pytest.raises(InputError, match=words):
            inception_score(logits)
