"""Inception score: how sure a classifier is of each image, and how many classes it finds among all.

Salimans et al. (arXiv 1606.03498): exp of the mean Kullback-Leibler divergence between the label distribution of an
image and that of all images. It falls with the number of images it is taken over: state the splits.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from shortcut_models.errors import InputError, check_whole
from shortcut_models.metrics.checks import Given, check_rows


def inception_score(logits: Given, splits: int = 10) -> tuple[float, float]:
    """Mean and population deviation over `splits` parts in the order given; part i starts at i * count // splits.

    `logits` are (n, classes). In float64 by log-softmax, which stays exact where a probability underflows. Raises
    InputError for fewer images than splits or logits that are not finite.
    """
    logits = check_rows("logits", logits, 1, "classes")
    check_whole("splits", splits, 1)
    if splits > len(logits):
        raise InputError(f"splits is {splits}, but there are logits of {len(logits)} image(s): take fewer splits.")
    count = len(logits)
    edges = [part * count // splits for part in range(splits + 1)]
    found = [_score(logits[start:end]) for start, end in pairwise(edges)]
    return float(np.mean(found)), float(np.std(found))


def chunked_score(logits: Float[np.ndarray, "count classes"], size: int = 5000) -> float:
    """The plain mean over chunks of `size` images in the order given, as in ADM's evaluator: a short last counts."""
    return float(np.mean([_score(logits[start : start + size]) for start in range(0, len(logits), size)]))


def _score(logits: np.ndarray) -> float:
    log_p = np.array(logits, np.float64)  # A copy, which is then changed in place: chunks are large.
    log_p -= log_p.max(axis=1, keepdims=True)
    log_p -= np.log(np.sum(np.exp(log_p), axis=1, keepdims=True))
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    marginal = np.log(np.where(mean > 0, mean, 1))  # Where no image has any weight, none multiplies it.
    log_p -= marginal
    log_p *= p
    return float(np.exp(np.mean(np.sum(log_p, axis=1))))
