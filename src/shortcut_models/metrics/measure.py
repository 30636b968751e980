"""Feeding samples to metrics, chunk by chunk; each kind of features is computed once for all that share it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shortcut_models.data.pixels import check_finite_samples
from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Arrays, Features, Metric, Reference, Sums, to_bytes, to_floats


class Rows:
    """Features that are kept in full, as float32: in memory, or in a file of which only what is used is in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.count, self.width = path, 0, 0
        self._parts: list[np.ndarray] = []
        if path is not None:
            path.touch()

    def append(self, rows: np.ndarray) -> None:
        """Keep more rows, behind those that are there."""
        rows = np.ascontiguousarray(rows, np.float32)
        if self.path is None:
            self._parts.append(rows)
        else:
            with self.path.open("r+b") as file:
                file.seek(self.count * rows.shape[1] * 4)
                file.write(rows.tobytes())
                file.truncate()
        self.count, self.width = self.count + len(rows), rows.shape[1]

    def array(self) -> np.ndarray:
        """All rows."""
        if self.path is None:
            return np.concatenate(self._parts)
        return np.memmap(self.path, np.float32, "r", shape=(self.count, self.width))

    def restore(self, count: int, width: int) -> bool:
        """Go back to the first `count` rows of the file; False if it does not hold them."""
        self.count, self.width = count, width
        return self.path is not None and self.path.stat().st_size >= count * width * 4


class Measurement:
    """Several metrics of one set of samples; with a folder, features that are kept in full lie in files there."""

    def __init__(self, metrics: Sequence[Metric], folder: Path | None = None) -> None:
        self.metrics = tuple(metrics)
        self.count = 0
        self._sums: dict[str, Sums] = {metric.name: metric.empty() for metric in metrics}
        kept = dict.fromkeys((metric.features, name) for metric in metrics for name in metric.rows)
        self._rows: dict[tuple[Features, str], Rows] = {
            key: Rows(folder and folder / f"rows-{number}.f32") for number, key in enumerate(kept)
        }

    def add(self, samples: np.ndarray, labels: np.ndarray) -> None:
        """Take in more samples: images as uint8 or as floats in about [-1, 1], or other arrays as they are."""
        self.take(self.examine(samples), labels)

    def examine(self, samples: np.ndarray) -> dict[Features, Arrays]:
        """The features of samples that the metrics need, each kind once; raises InputError for NaN."""
        check_finite_samples(samples)
        kinds = dict.fromkeys(metric.features for metric in self.metrics)
        return {features: features(_as_taken(samples, features)) for features in kinds}

    def take(self, found: dict[Features, Arrays], labels: np.ndarray) -> None:
        """Take in the features of more samples, whose labels these are."""
        for metric in self.metrics:
            self._sums[metric.name] = metric.add(self._sums[metric.name], found[metric.features], labels)
        for (owner, name), rows in self._rows.items():
            rows.append(found[owner][name])
        self.count += len(labels)

    def sums(self, metric: Metric) -> Sums:
        """What was added up for a metric, with the features that it needs in full."""
        return self._sums[metric.name] | {name: self._rows[metric.features, name].array() for name in metric.rows}

    def state(self) -> Arrays:
        """What `restore` needs, beside the files of the folder."""
        shapes = np.array([(rows.count, rows.width) for rows in self._rows.values()], int).reshape(-1, 2)
        sums = {f"{name}/{key}": np.asarray(array) for name, sums in self._sums.items() for key, array in sums.items()}
        return {"count": np.array(self.count), "rows": shapes, **sums}

    def restore(self, state: Arrays) -> bool:
        """Go on where `state` was taken; False if the files of the folder do not hold what they should."""
        self.count = int(state["count"])
        for name in self._sums:
            own = {key.removeprefix(f"{name}/"): array for key, array in state.items() if key.startswith(f"{name}/")}
            self._sums[name] = dict(own)
        pairs = zip(self._rows.values(), state["rows"].tolist(), strict=True)
        return all(rows.restore(count, width) for rows, (count, width) in pairs)

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
        raise InputError(
            "no metric is chosen, and the data have none by default, did not come with the model, or are no longer "
            "where they were: name metrics "
            "(--metrics or --protocol), or the data to compare with (--data)."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"metric {twice!r} is named twice: name each once.")
    for metric in metrics:
        metric.features.check(shape)


def check_count(metrics: Sequence[Metric], count: int, what: str) -> None:
    """Raise InputError for fewer samples than one of the metrics makes a number of; `what` they are, for people."""
    for metric in metrics:
        if count < metric.least:
            raise InputError(
                f"{metric.name} takes at least {metric.least} {what}, not {count}: take more, or leave this metric out."
            )


def _as_taken(samples: np.ndarray, features: Features) -> np.ndarray:
    prepare = {"bytes": to_bytes, "floats": to_floats, "raw": np.asarray}
    return prepare[features.takes](samples)
