"""Kernel Inception distance: the squared maximum mean discrepancy under a polynomial kernel.

Bińkowski et al. (arXiv 1801.01401): k(x, y) = (x.y / d + 1)^3 for vectors of d features. The estimate is unbiased,
so that it needs no correction for the number of samples, and may be below zero. All in float64.
"""

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError

ROWS = 1024
"""Rows of a kernel matrix that are held at once."""

Vectors = Float[np.ndarray, "count features"]
Others = Float[np.ndarray, "others length"]


def kid(fake: Vectors, real: Others) -> float:
    """Kernel distance over all pairs: the closed form, whatever the two numbers of vectors.

    Raises InputError for fewer than two vectors or vectors of other lengths.
    """
    fake, real = check_vectors(fake, real, least=2)
    n, m = len(fake), len(real)
    within = (_kernel_sum(fake, fake) - _diagonal(fake)) / (n * (n - 1))
    within += (_kernel_sum(real, real) - _diagonal(real)) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(fake, real) / (n * m))


def kid_subsets(
    fake: Vectors, real: Others, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and population deviation of the kernel distance over random subsets, drawn as torch-fidelity draws them.

    One `RandomState`; for each subset first a choice of the fake vectors, then one of the real, without replacement.
    Raises InputError if a set is smaller than the subsets.
    """
    fake, real = check_vectors(fake, real, least=2)
    if subsets < 1:
        raise InputError(f"subsets is {subsets}, but must be at least 1.")
    if not 2 <= subset_size <= min(len(fake), len(real)):
        raise InputError(
            f"subset_size is {subset_size}, but must lie between 2 and the smaller number of vectors, "
            f"{min(len(fake), len(real))}."
        )
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        some = fake[rng.choice(len(fake), subset_size, replace=False)]
        others = real[rng.choice(len(real), subset_size, replace=False)]
        found.append(kid(some, others))
    return float(np.mean(found)), float(np.std(found))


def check_vectors(fake: np.ndarray, real: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; raises InputError unless they are finite vectors of one length, at least so many of each."""
    for what, vectors in (("fake", fake), ("real", real)):
        if vectors.ndim != 2 or len(vectors) < least:
            raise InputError(f"{what} has shape {vectors.shape}, but must be (n, features) with n at least {least}.")
        if not np.isfinite(vectors).all():
            raise InputError(f"{what} holds NaN or infinite numbers: find out which sample gave them.")
    if fake.shape[1] != real.shape[1]:
        raise InputError(
            f"vectors of {fake.shape[1]} features cannot be compared with vectors of {real.shape[1]}: "
            "take both from the same network."
        )
    return np.asarray(fake, np.float64), np.asarray(real, np.float64)


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(np.sum((a[i : i + ROWS] @ b.T / a.shape[1] + 1) ** 3) for i in range(0, len(a), ROWS)))


def _diagonal(a: np.ndarray) -> float:
    return float(np.sum((np.einsum("ij,ij->i", a, a) / a.shape[1] + 1) ** 3))
