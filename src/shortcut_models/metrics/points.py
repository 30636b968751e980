"""Distances between sets of points of a few dimensions: no features but the points themselves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Arrays, Features, Reference, ScalarMetric, Sums

Points = Float[np.ndarray, "count dimensions"]
Others = Float[np.ndarray, "others dimensions"]

ANGLES = 64  # Directions that sliced distances average over: their error is then well below that of any sample.


@dataclass(frozen=True, kw_only=True)
class Coordinates(Features):
    """{"points": the samples as they are}."""

    takes = "raw"

    @property
    def name(self) -> str:
        return "points"

    def check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 1:
            raise InputError(
                f"distances between points measure points, but the samples are {'x'.join(map(str, shape))}: "
                "choose metrics of images."
            )

    def __call__(self, samples: np.ndarray) -> Arrays:
        return {"points": np.asarray(samples, np.float32)}


def energy_distance(a: Points, b: Others, within_b: float | None = None) -> float:
    """Energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (Székely & Rizzo, 2013), in units of the points.

    Over all pairs, a point with itself included: never negative, and too large by about (E|x - x'|) / n.
    `within_b` is E|y - y'| where that is known already.

    >>> energy_distance(np.zeros((1, 2)), np.array([[3.0, 4.0]]))
    10.0
    """
    within_b = mean_distance(b, b) if within_b is None else within_b
    return max(2 * mean_distance(a, b) - mean_distance(a, a) - within_b, 0.0)


def mean_distance(a: Points, b: Others, rows: int = 1024) -> float:
    """Mean distance over all pairs."""
    from scipy.spatial.distance import cdist  # Slow to import, and needed here only.

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(sum(cdist(a[i : i + rows], b).sum() for i in range(0, len(a), rows)) / (len(a) * len(b)))


def sliced_wasserstein(a: Points, b: Others) -> float:
    """Root mean square, over fixed directions, of the 2-Wasserstein distance along each, in units of the points.

    Bonneel et al. (2015). In two dimensions the directions are equal angles, else drawn once and for all.
    """
    dimensions = a.shape[1]
    if dimensions == 2:
        angles = np.pi * (np.arange(ANGLES) + 0.5) / ANGLES
        directions = np.stack([np.cos(angles), np.sin(angles)])
    else:
        directions = np.random.default_rng(0).standard_normal((dimensions, ANGLES))
        directions /= np.linalg.norm(directions, axis=0)
    p, q = (np.sort(np.asarray(points, np.float64) @ directions, axis=0) for points in (a, b))
    # Both quantile functions are steps: the integral over their difference is a sum over where either steps.
    at = np.union1d(np.arange(len(p) + 1) / len(p), np.arange(len(q) + 1) / len(q))
    middle = (at[1:] + at[:-1]) / 2
    apart = p[(middle * len(p)).astype(int)] - q[(middle * len(q)).astype(int)]
    return float(np.sqrt(np.mean(np.diff(at) @ apart**2)))


@dataclass(frozen=True, kw_only=True)
class Energy(ScalarMetric):
    """The energy distance."""

    features: Features = Coordinates()
    rows: tuple[str, ...] = ("points",)

    def value(self, sums: Sums, reference: Reference) -> float:
        real = reference.sums["points"]
        if "within" not in reference.sums:  # The most of the work, and the same for every budget.
            reference.sums["within"] = mean_distance(real, real)
        return energy_distance(sums["points"], real, reference.sums["within"])


@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein(ScalarMetric):
    """The sliced 2-Wasserstein distance."""

    features: Features = Coordinates()
    rows: tuple[str, ...] = ("points",)

    def value(self, sums: Sums, reference: Reference) -> float:
        return sliced_wasserstein(sums["points"], reference.sums["points"])


ENERGY = Energy(name="energy")
SLICED_WASSERSTEIN = SlicedWasserstein(name="sliced-wasserstein")
