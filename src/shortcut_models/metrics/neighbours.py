"""Fidelity and diversity apart, by balls around samples that reach to the k-th neighbour.

Precision and recall as in Kynkäänniemi et al. (arXiv 1904.06991): a sample on the surface of a ball is inside.
Density and coverage as in Naeem et al. (arXiv 2002.09797) and their program: it is outside.

Distances come from a product of matrices in float64; where that leaves a decision open, and so for every tie, it is
taken by the sum of squared differences, which is the same for a pair whatever stands around it. Equal vectors, of
which a collapsed model makes many, are taken once and counted.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from shortcut_models.errors import check_whole
from shortcut_models.metrics.checks import Given, check_vectors

ROWS = 512
"""Rows of a distance matrix that are held at once."""

ROUNDING = 1e-12
"""Bound, relative to the squared norms, on the error of a squared distance by a product of matrices."""

Vectors = Float[np.ndarray, "count features"]
Others = Float[np.ndarray, "others length"]


class Distinct(NamedTuple):
    """Vectors without duplicates, and how often each was given."""

    vectors: Vectors
    counts: Int[np.ndarray, " count"]

    def share(self, chosen: Bool[np.ndarray, " count"]) -> float:
        """Share of the vectors as they were given that are chosen."""
        return float(self.counts[chosen].sum() / self.counts.sum())


def precision_recall(fake: Given, real: Given, k: int = 3) -> tuple[float, float]:
    """Share of fake vectors inside some ball of real ones, and share of real ones inside some ball of fake ones.

    Raises InputError unless both have more than `k` vectors.
    """
    fake, real = (distinct(vectors) for vectors in _check(fake, real, k))

    def covered(points: Distinct, centres: Distinct) -> float:
        inside = _inside(points.vectors, centres.vectors, squared_radii(centres, k), strict=False)
        return points.share(np.concatenate([some.any(axis=1) for some in inside]))

    return covered(fake, real), covered(real, fake)


def density_coverage(fake: Given, real: Given, k: int = 5) -> tuple[float, float]:
    """Mean number of real balls around a fake vector, by `k`; and share of real balls with a fake vector inside.

    Raises InputError unless both have more than `k` vectors.
    """
    fake, real = (distinct(vectors) for vectors in _check(fake, real, k))
    around, covered = [], np.zeros(len(real.vectors), bool)
    for inside in _inside(fake.vectors, real.vectors, squared_radii(real, k), strict=True):
        around.append(inside @ real.counts)
        covered |= inside.any(axis=0)
    balls = np.concatenate(around) @ fake.counts
    return float(balls / (k * fake.counts.sum())), real.share(covered)


def distinct(vectors: Vectors) -> Distinct:
    """The vectors, each once, in the order of their first."""
    groups: dict[bytes, int] = {}
    # Adding 0 makes -0 equal to it in every bit. A digest is as good as the row, and does not take its room.
    own = [groups.setdefault(hashlib.blake2b(row + 0.0).digest(), len(groups)) for row in vectors]
    _, first, counts = np.unique(own, return_index=True, return_counts=True)
    return Distinct(vectors if len(first) == len(vectors) else vectors[first], counts)


def squared_radii(points: Distinct, k: int) -> Float[np.ndarray, " count"]:
    """Squared distance from each vector to its k-th neighbour, itself not counted but its duplicates."""
    vectors, counts = points
    last = min(k, len(vectors) - 1)  # The k-th but itself, if no other is there twice: none lies farther.
    found = []
    for start, squared, bound in _rough(vectors, vectors):
        squared += bound
        farthest = np.partition(squared, last)[:, last, None]
        bound *= 2
        squared -= bound
        rows, columns = np.nonzero(squared <= farthest)
        exact = _exact(vectors, start + rows, vectors, columns)
        order = np.lexsort((exact, rows))
        near = np.cumsum((counts[columns] - (columns == start + rows))[order])  # Neighbours up to this far.
        before = np.concatenate([[0], near])[np.searchsorted(rows, np.arange(len(squared)))]
        found.append(exact[order][np.searchsorted(near, before + k)])
    return np.concatenate(found)


def nearest_squared(points: Vectors, centres: Others, k: int) -> Float[np.ndarray, "count k"]:
    """Squared distances from each vector to the `k` nearest centres, in order."""
    found = []
    for start, squared, _ in _rough(points, centres):
        columns = np.argpartition(squared, k - 1)[:, :k]
        rows = np.repeat(np.arange(len(squared)), k)
        exact = _exact(points, start + rows, centres, columns.ravel()).reshape(-1, k)
        found.append(np.sort(exact, axis=1))
    return np.concatenate(found)


def _inside(
    points: np.ndarray, centres: np.ndarray, radii: np.ndarray, strict: bool
) -> Iterator[Bool[np.ndarray, "rows centres"]]:
    """Which points lie in which balls, some points at a time; `strict` leaves out the surface."""
    for start, squared, bound in _rough(points, centres):
        rows, columns = np.nonzero(np.abs(squared - radii) <= bound)
        squared[rows, columns] = _exact(points, start + rows, centres, columns)
        yield squared < radii if strict else squared <= radii


def _rough(points: np.ndarray, centres: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Where rows start, their squared distances up to rounding, and a bound on that."""
    # From where most are, their bound is narrower: nearly equal ones, as of a collapsed model, need no second look.
    middle = np.median(points[:: len(points) // 100 + 1], axis=0)
    same, points = points is centres, points - middle
    centres = points if same else centres - middle
    ours, theirs = (np.einsum("ij,ij->i", vectors, vectors) for vectors in (points, centres))
    for start in range(0, len(points), ROWS):
        total = ours[start : start + ROWS, None] + theirs
        squared = points[start : start + ROWS] @ centres.T
        squared *= -2
        squared += total
        total *= ROUNDING
        yield start, squared, total


def _exact(points: np.ndarray, rows: np.ndarray, centres: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Squared distances of pairs; in parts, since there are many pairs where there are many duplicates."""
    size = max(2**22 // points.shape[1], 1)
    parts = [
        np.sum((points[rows[i : i + size]] - centres[columns[i : i + size]]) ** 2, axis=1)
        for i in range(0, len(rows), size)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _check(fake: Given, real: Given, k: int) -> tuple[np.ndarray, np.ndarray]:
    check_whole("k", k, 1)
    return check_vectors(fake, real, least=k + 1)
