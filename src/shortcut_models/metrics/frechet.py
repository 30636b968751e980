"""Fréchet distance between Gaussians fitted to two sets of features.

Dowson & Landau (1982); Heusel et al. (arXiv 1706.08500) use it on Inception features as FID:

    || m1 - m2 ||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError


class Gaussian(NamedTuple):
    """Mean and unbiased covariance of a set of feature vectors, in float64."""

    mean: Float[np.ndarray, " features"]
    covariance: Float[np.ndarray, "features features"]


def fit_gaussian(features: Float[np.ndarray, "count features"]) -> Gaussian:
    """Fit a Gaussian to the rows; needs at least two."""
    if len(features) < 2:
        raise InputError(f"a Gaussian cannot be fitted to {len(features)} image(s): give at least 2.")
    features = np.asarray(features, np.float64)
    return Gaussian(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance, in squared units of the features; never negative.

    The trace of (S1 S2)^(1/2) is taken from the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2),
    which stays exact for singular covariances, where a general matrix square root does not.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = np.clip(np.linalg.eigvalsh(root @ b.covariance @ root), 0, None)
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance)
    return float(max(distance - 2 * np.sum(np.sqrt(product)), 0.0))
