"""Fidelity and diversity apart, by balls around samples that reach to the k-th neighbour.

Precision and recall as in Kynkäänniemi et al. (arXiv 1904.06991): a sample on the surface of a ball is inside.
Density and coverage as in Naeem et al. (arXiv 2002.09797) and their program: it is outside.

Distances come from a product of matrices in float64; where that leaves a decision open, and so for every tie and
duplicate, it is taken by the sum of squared differences, which is the same for a pair whatever stands around it.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from shortcut_models.errors import check_whole
from shortcut_models.metrics.checks import Given, check_vectors

ROWS = 512
"""Rows of a distance matrix that are held at once."""

ROUNDING = 1e-12
"""Bound, relative to the squared norms, on the error of a squared distance by a product of matrices."""

Vectors = Float[np.ndarray, "count features"]
Others = Float[np.ndarray, "others length"]


def precision_recall(fake: Given, real: Given, k: int = 3) -> tuple[float, float]:
    """Share of fake vectors inside some ball of real ones, and share of real ones inside some ball of fake ones.

    Raises InputError unless both have more than `k` vectors.
    """
    fake, real = _check(fake, real, k)
    precision = np.concatenate([ball.any(axis=1) for ball in _inside(fake, real, squared_radii(real, k), False)])
    recall = np.concatenate([ball.any(axis=1) for ball in _inside(real, fake, squared_radii(fake, k), False)])
    return float(precision.mean()), float(recall.mean())


def density_coverage(fake: Given, real: Given, k: int = 5) -> tuple[float, float]:
    """Mean number of real balls around a fake vector, by `k`; and share of real balls with a fake vector inside.

    Raises InputError unless both have more than `k` vectors.
    """
    fake, real = _check(fake, real, k)
    balls, covered = 0, np.zeros(len(real), bool)
    for inside in _inside(fake, real, squared_radii(real, k), True):
        balls += np.count_nonzero(inside)
        covered |= inside.any(axis=0)
    return float(balls / (k * len(fake))), float(covered.mean())


def squared_radii(points: Vectors, k: int) -> Float[np.ndarray, " count"]:
    """Squared distance from each vector to its k-th neighbour, itself not counted."""
    found = []
    for start, squared, bound in _rough(points, points):
        own = np.arange(len(squared))
        squared[own, start + own] = np.inf
        kth = np.partition(squared, k - 1)[:, k - 1 : k]
        rows, columns = np.nonzero(squared <= kth + 2 * bound.max(axis=1, keepdims=True))
        exact = _exact(points, start + rows, points, columns)
        order = np.lexsort((exact, rows))
        first = np.searchsorted(rows, own)
        found.append(exact[order][first + k - 1])
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
    ours, theirs = (np.einsum("ij,ij->i", vectors, vectors) for vectors in (points, centres))
    for start in range(0, len(points), ROWS):
        total = ours[start : start + ROWS, None] + theirs
        yield start, total - 2 * (points[start : start + ROWS] @ centres.T), ROUNDING * total


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
