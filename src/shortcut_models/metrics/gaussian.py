"""Fréchet distance between Gaussians fitted to two sets of features.

Dowson & Landau (1982); Heusel et al. (arXiv 1706.08500) use it on Inception features as FID:

    || m1 - m2 ||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

All in float64. With S1 = A^T A and S2 = B^T B the trace of the root is the sum of the singular values of A B^T.
A and B are the centred samples themselves where these are fewer than features, else Cholesky factors, or of
singular covariances what the eigenvalues above their rounding give: the square roots of hundreds of eigenvalues of
1e-16 that should be 0 would be seen in the sixth digit.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Arrays, Reference, ScalarMetric, Statistics, Sums
from shortcut_models.metrics.checks import Given, check_vectors
from shortcut_models.metrics.features.classifier import DIGITNET1, FASHIONNET1, GLYPHNET1
from shortcut_models.metrics.features.pixels import Pixels

Vectors = Float[np.ndarray, "count features"]
Others = Float[np.ndarray, "others length"]


class Gaussian(NamedTuple):
    """Mean and unbiased covariance of feature vectors, in float64.

    The covariance of fewer vectors than features is kept as its factor: their differences from the mean, divided
    by the root of their number less one.
    """

    mean: Float[np.ndarray, " features"]
    covariance: Float[np.ndarray, "features features"] | None
    factor: Vectors | None = None

    @property
    def trace(self) -> float:
        """Sum of the variances."""
        return float(np.trace(covariance(self)) if self.factor is None else np.sum(self.factor**2))


def start_sums() -> Sums:
    """The sums over no vectors: "count", and once there are any "mean" and "scatter", or all "vectors" while few."""
    return {"count": np.int64(0)}


def add_vectors(sums: Sums, vectors: Vectors) -> Sums:
    """The sums with more vectors: mean and scatter about it, merged as by Chan, Golub & LeVeque (1979).

    While they are fewer than their features, which take less room than a scatter matrix, all are kept.
    """
    vectors = np.asarray(vectors, np.float64)
    if "scatter" not in sums:
        known = np.concatenate([sums["vectors"], vectors]) if "vectors" in sums else vectors
        few = len(known) < known.shape[1]
        return {"count": np.int64(len(known)), **({"vectors": known} if few else _scatter(known))}
    if not len(vectors):
        return sums
    more, before, after = _scatter(vectors), int(sums["count"]), len(vectors)
    apart = more["mean"] - sums["mean"]
    total = before + after
    # In place, where the array is ours: each of these matrices takes 32 MiB for Inception.
    between, scatter = np.outer(apart, apart), more["scatter"]
    between *= before * after / total
    scatter += sums["scatter"]
    scatter += between
    return {"count": np.int64(total), "mean": sums["mean"] + apart * (after / total), "scatter": scatter}


def _scatter(vectors: np.ndarray) -> Sums:
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    return {"mean": mean, "scatter": centred.T @ centred}


def gaussian_of(sums: Sums) -> Gaussian:
    """The Gaussian fitted to what was added up, which takes at least two vectors, or read from a file."""
    if "covariance" in sums:
        return Gaussian(sums["mean"], sums["covariance"])
    count = int(sums["count"])
    if count < 2:
        raise InputError(f"a Gaussian cannot be fitted to {count} sample(s): give at least 2.")
    if "vectors" in sums:
        mean = sums["vectors"].mean(axis=0)
        return Gaussian(mean, None, (sums["vectors"] - mean) / np.sqrt(count - 1))
    return Gaussian(sums["mean"], sums["scatter"] * (1 / (count - 1)))


def fit_gaussian(vectors: Vectors) -> Gaussian:
    """Fit a Gaussian to the rows; needs at least two."""
    return gaussian_of(add_vectors(start_sums(), vectors))


def frechet_distance(a: Gaussian, b: Gaussian, offset: float = 0.0) -> float:
    """Squared Fréchet distance, in squared units of the features; never negative without an offset.

    `offset` is added to both diagonals inside the root alone, as some protocols do: the distance is then too
    low by about twice the offset per feature.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(f"vectors of {len(a.mean)} features cannot be compared with vectors of {len(b.mean)}.")
    distance = float(np.sum((a.mean - b.mean) ** 2)) + a.trace + b.trace
    if offset:
        eye = offset * np.eye(len(a.mean))
        return distance - 2 * root_trace(*(Gaussian(g.mean, covariance(g) + eye) for g in (a, b)))
    return max(distance - 2 * root_trace(a, b), 0.0)


def frechet(fake: Given, real: Given) -> float:
    """Squared Fréchet distance between two sets of vectors (n, features), in float64: see `frechet_distance`.

    Raises InputError for fewer than two vectors, vectors of other lengths or such as are not finite.
    """
    fake, real = check_vectors(fake, real, least=2)
    return frechet_distance(fit_gaussian(fake), fit_gaussian(real))


def bias(real: Gaussian, count: int) -> float:
    """What a perfect model gets on average with `count` samples, to first order in 1 / count.

    (1/2 sum_ij l_i l_j / (l_i + l_j) + 5/4 tr S) / count, with l the eigenvalues of the covariance S. Too low where
    `count` is below twice the number of features. The reference's own number adds the same again.
    """
    if real.factor is not None:
        values = np.linalg.svd(real.factor, compute_uv=False) ** 2
    else:
        values = np.linalg.eigvalsh(covariance(real))
    return bias_of(values[values > 0], count)


def bias_of(values: Float[np.ndarray, " features"], count: int) -> float:
    """The same from the eigenvalues of the covariance, all above zero."""
    pairs = np.sum(values[:, None] * values / (values[:, None] + values))
    return float((pairs / 2 + 5 / 4 * values.sum()) / count)


def frechet_infinity(fake: Vectors, real: Gaussian, sizes: int = 15, seed: int = 0) -> float:
    """Where the distance would go with ever more samples: Chong & Forsyth (arXiv 1911.07023).

    A line in 1 / n through the distances of `sizes` shuffled subsets, from 5,000 vectors (or a tenth, if that is
    fewer) to all of them, met at 0. It takes out the samples' bias, not the reference's. Raises InputError for fewer
    than twice as many vectors as sizes.
    """
    if len(fake) < 2 * sizes:
        raise InputError(f"frechet_infinity takes at least {2 * sizes} vectors, not {len(fake)}: draw more samples.")
    rng, least = np.random.default_rng(seed), min(5000, max(len(fake) // 10, 2))
    counts = np.linspace(least, len(fake), sizes).astype(int)
    found = [frechet_distance(fit_gaussian(fake[rng.permutation(len(fake))[:count]]), real) for count in counts]
    return float(np.polyfit(1 / counts, found, 1)[1])


def root_trace(a: Gaussian, b: Gaussian) -> float:
    """The trace of (S1 S2)^(1/2)."""
    return float(np.sum(np.linalg.svd(_factor(a) @ _factor(b).T, compute_uv=False)))


def covariance(gaussian: Gaussian) -> Float[np.ndarray, "features features"]:
    """The covariance, whichever way it is kept."""
    if gaussian.factor is not None:
        return gaussian.factor.T @ gaussian.factor
    assert gaussian.covariance is not None
    return gaussian.covariance


def _factor(gaussian: Gaussian) -> Float[np.ndarray, "rank features"]:
    """A with A^T A the covariance, up to its rounding."""
    if gaussian.factor is not None:
        return gaussian.factor
    matrix = covariance(gaussian)
    noise = len(matrix) * np.finfo(np.float64).eps
    with suppress(np.linalg.LinAlgError):
        lower = np.linalg.cholesky(matrix)
        if lower.diagonal().min() ** 2 > noise * matrix.diagonal().max():
            return lower.T
    values, vectors = np.linalg.eigh(matrix)
    kept = values > noise * max(values[-1], 0)
    return (vectors[:, kept] * np.sqrt(values[kept])).T


@dataclass(frozen=True, kw_only=True)
class Frechet(ScalarMetric):
    """The squared Fréchet distance over one array of features."""

    array: str = "vector"
    """Which of the features' arrays is compared."""
    offset: float = 0.0

    def empty(self) -> Sums:
        return start_sums()

    def add(self, sums: Sums, features: Arrays, labels: np.ndarray) -> Sums:  # noqa: ARG002
        return add_vectors(sums, features[self.array])

    def from_statistics(self, statistics: Statistics) -> Sums | None:
        return statistics.gaussians.get(self.array)

    def perfect(self, reference: Reference, count: int) -> tuple[float, int] | None:
        if self.features.prepared_by is None:
            return None
        real = gaussian_of(reference.sums)
        return bias(real, count), 2 * len(real.mean)

    def value(self, sums: Sums, reference: Reference) -> float:
        own, real = gaussian_of(sums), gaussian_of(reference.sums)
        if len(own.mean) != len(real.mean):
            raise InputError(
                f"{self.name} has {len(own.mean)} features of the samples, but {len(real.mean)} of the real ones: give "
                "both one size and the same channels, as `shortcut prepare` does."
            )
        return frechet_distance(own, real, self.offset)


FRECHET_PIXELS = Frechet(name="frechet-pixels", features=Pixels())
FRECHET_PIXELS7X7 = Frechet(name="frechet-pixels7x7", features=Pixels(side=7))
FRECHET_PIXELS8X8 = Frechet(name="frechet-pixels8x8", features=Pixels(side=8))
FRECHET_DIGITNET1 = Frechet(name="frechet-digitnet1", features=DIGITNET1)
FRECHET_FASHIONNET1 = Frechet(name="frechet-fashionnet1", features=FASHIONNET1)
FRECHET_GLYPHNET1 = Frechet(name="frechet-glyphnet1", features=GLYPHNET1)
