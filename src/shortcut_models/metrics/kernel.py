"""Kernel Inception distance: the squared maximum mean discrepancy under a polynomial kernel.

Bińkowski et al. (arXiv 1801.01401): k(x, y) = (x.y / d + 1)^3 for vectors of d features. The estimate is unbiased,
so that it needs no correction for the number of samples, and may be below zero. All in float64.
"""

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError, check_whole
from shortcut_models.metrics.checks import Given, check_vectors

ROWS = 1024
"""Rows of a kernel matrix that are held at once."""

Vectors = Float[np.ndarray, "count features"]
Others = Float[np.ndarray, "others length"]


def kid(fake: Given, real: Given) -> float:
    """Kernel distance over all pairs: the closed form, whatever the two numbers of vectors.

    Raises InputError for fewer than two vectors, vectors of other lengths or such as are not finite.
    """
    fake, real = check_vectors(fake, real, least=2)
    n, m = len(fake), len(real)
    within = (_kernel_sum(fake, fake) - _diagonal(fake)) / (n * (n - 1))
    within += (_kernel_sum(real, real) - _diagonal(real)) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(fake, real) / (n * m))


def kid_subsets(
    fake: Given, real: Given, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and population deviation of the kernel distance over random subsets, drawn as torch-fidelity draws them.

    One `RandomState`; for each subset first a choice of the fake vectors, then one of the real, without replacement.
    Raises InputError if a set is smaller than the subsets, or a seed is none of `RandomState`.
    """
    fake, real = check_vectors(fake, real, least=2)
    check_whole("subsets", subsets, 1)
    check_whole("subset_size", subset_size, 2)
    if subset_size > min(len(fake), len(real)):
        raise InputError(
            f"subset_size is {subset_size}, but there are {len(fake)} fake and {len(real)} real vectors: take smaller "
            "subsets, or more vectors."
        )
    check_whole("seed", seed, 0, 2**32 - 1)
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        some = fake[rng.choice(len(fake), subset_size, replace=False)]
        others = real[rng.choice(len(real), subset_size, replace=False)]
        found.append(kid(some, others))
    return float(np.mean(found)), float(np.std(found))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(np.sum((a[i : i + ROWS] @ b.T / a.shape[1] + 1) ** 3) for i in range(0, len(a), ROWS)))


def _diagonal(a: np.ndarray) -> float:
    return float(np.sum((np.einsum("ij,ij->i", a, a) / a.shape[1] + 1) ** 3))
