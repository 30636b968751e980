"""Feeding samples to metrics, chunk by chunk; each kind of features is computed once for all that share it."""

from collections.abc import Sequence

import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Features, Metric, Reference, Sums, to_bytes, to_floats


class Measurement:
    """Several metrics of one set of samples."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)
        self.count = 0
        self._sums: dict[str, Sums] = {metric.name: metric.empty() for metric in metrics}
        self._rows: dict[tuple[Features, str], list[np.ndarray]] = {
            (metric.features, name): [] for metric in metrics for name in metric.rows
        }

    def add(self, samples: np.ndarray, labels: np.ndarray) -> None:
        """Take in more samples: images as uint8 or as floats in about [-1, 1], or other arrays as they are."""
        for features in dict.fromkeys(metric.features for metric in self.metrics):
            found = features(_as_taken(samples, features))
            for metric in self.metrics:
                if metric.features == features:
                    self._sums[metric.name] = metric.add(self._sums[metric.name], found, labels)
            for (owner, name), rows in self._rows.items():
                if owner == features:
                    rows.append(np.asarray(found[name], np.float32))
        self.count += len(samples)

    def sums(self, metric: Metric) -> Sums:
        """What was added up for a metric, with the features that it needs in full."""
        return self._sums[metric.name] | {
            name: np.concatenate(self._rows[metric.features, name]) for name in metric.rows
        }

    def values(self, references: dict[str, Reference]) -> dict[str, float]:
        """All numbers by their full names, in the order of the metrics; a reference for each metric's name."""
        found: dict[str, float] = {}
        for metric in self.metrics:
            found |= metric.values(self.sums(metric), references[metric.name], self.count)
        return found


def chunk_size(shape: tuple[int, ...]) -> int:
    """How many samples of this shape to hold at once: enough to be quick, few enough for any memory."""
    return 256 * int(np.clip(2**23 // (256 * max(int(np.prod(shape)), 1)), 1, 8))


def check_metrics(metrics: Sequence[Metric], shape: tuple[int, ...]) -> None:
    """Raise InputError unless there are metrics, each once, that measure samples of this shape."""
    names = [metric.name for metric in metrics]
    if not names:
        raise InputError("no metric is chosen, and the data set has none by default: name some.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"metric {twice!r} is named twice: name each once.")
    for metric in metrics:
        metric.features.check(shape)


def _as_taken(samples: np.ndarray, features: Features) -> np.ndarray:
    prepare = {"bytes": to_bytes, "floats": to_floats, "raw": np.asarray}
    return prepare[features.takes](samples)
