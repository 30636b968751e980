"""Metrics: samples to features to numbers; the protocol is part of a number's name.

The functions take NumPy arrays (n, features) of vectors, as any network may give them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shortcut_models.metrics.features.inception import Inception
    from shortcut_models.metrics.gaussian import frechet
    from shortcut_models.metrics.kernel import kid, kid_subsets
    from shortcut_models.metrics.neighbours import density_coverage, precision_recall
    from shortcut_models.metrics.scores import inception_score

_WHERE = {
    "frechet": "gaussian",
    "kid": "kernel",
    "kid_subsets": "kernel",
    "precision_recall": "neighbours",
    "density_coverage": "neighbours",
    "inception_score": "scores",
    "Inception": "features.inception",
}

__all__ = ["Inception", "density_coverage", "frechet", "inception_score", "kid", "kid_subsets", "precision_recall"]


def __getattr__(name: str) -> object:
    # Loaded on first use: the numbers take NumPy alone, and only Inception takes JAX.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
