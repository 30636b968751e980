"""Real samples: what others are measured against, and what as many real ones get themselves.

The reference is the whole training split, as in the literature. Data that are drawn as they are asked for have
no whole: there it is the start of the held-out split.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from shortcut_models.data.base import Data, Source, describe, remarks, take
from shortcut_models.data.proportions import ENDLESS
from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Metric, Reference
from shortcut_models.metrics.measure import Measurement, chunk_size

DRAWN = 10_000
"""Real samples of which metrics keep every feature, or which stand for an endless split."""

DRAWS = 4
"""Sets of an endless training split whose numbers are averaged: one set's distance to the reference is a matter of
luck (for 1,000 glyphs its standard deviation is a third of its mean over pixels, a sixth over features)."""

PROBED = 100
"""Images, evenly spread over all, of which none has colour where all are grey."""

_REFERENCES: dict[tuple[str, Metric], Reference] = {}
_ROWS: dict[tuple[str, Metric, int], dict[str, float]] = {}


class Real(NamedTuple):
    """What real samples get, and which ones."""

    values: dict[str, float]
    what: str


def read(source: Source, indices: Sequence[int] | Int[np.ndarray, " count"]) -> tuple[np.ndarray, np.ndarray]:
    """Samples and labels at these indices; raises InputError for latents, which no metric takes for images."""
    try:
        batch = take(source, np.asarray(indices))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"images of several sizes cannot be measured together ({error}): resize them first."
        ) from error
    for kind in ("image", "x"):
        if kind in batch:
            return batch[kind], batch["label"]
    raise InputError("the data set holds latents, not images: give images (--data), or statistics of them (--stats).")


class Exact:
    """A source of image files that gives each as it is, or says why it cannot: none stands for another."""

    def __init__(self, name: str, source: Any) -> None:
        self._name, self._source, self._shape = name, source, ()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The example; raises InputError if it cannot be read or has another size than those before."""
        example, _ = self.noted(index)
        shape = example["image"].shape
        self._shape = self._shape or shape
        if shape != self._shape:
            own, first = (f"{height}x{width}" for height, width, _ in (shape, self._shape))
            raise InputError(
                f"{self._source.records.name(int(index))} of {self._name} is {own}, but others are {first}: images "
                "are measured at one size; give all one with `shortcut prepare`."
            )
        return example

    def remarks(self) -> list[str]:
        """Those of the source."""
        return remarks(self._source)

    def noted(self, index: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The example of any size, and what was done to read it."""
        return self._source.noted(int(index))


def exact(data: Data, source: Source) -> Source:
    """A source of which no example is replaced by another because it cannot be read."""
    return Exact(describe(data), source) if hasattr(source, "noted") else source


def is_stored_grey(source: Source, indices: Int[np.ndarray, " count"]) -> bool:
    """Whether images have one channel of light, which stands three times in RGB; as `PROBED` of them tell."""
    for index in _spread(indices):
        example, notes = source.noted(int(index)) if isinstance(source, Exact) else (source[int(index)], ())
        if "gray_replicated" not in notes and np.shape(example.get("image", 0))[-1:] != (1,):
            return False
    return True


def is_grey(source: Source) -> bool:
    """Whether images have no colour, however they are stored; as `PROBED` of them tell."""
    examples = (source[int(index)] for index in _spread(np.arange(len(source))))
    images = (np.asarray(example["image"] if "image" in example else example["x"]) for example in examples)
    return all((image == image[..., :1]).all() for image in images)


def _spread(indices: np.ndarray) -> np.ndarray:
    return indices[np.linspace(0, len(indices) - 1, min(len(indices), PROBED)).astype(int)]


def sample_shape(data: Data) -> tuple[int, ...]:
    """Shape of one sample as metrics take it: that of an example, or what latents decode to."""
    if unreadable(data) is None:
        return read(data.open(data.splits[0]), [0])[0].shape[1:]
    import jax  # Names and refusals do without.

    x = jax.ShapeDtypeStruct((1, *data.shape), np.float32)
    return jax.eval_shape(lambda codec, given: codec.decode(given), data.codec.ready(), x).shape[1:]


def unreadable(data: Data) -> str | None:
    """Why no example can be measured, if so: the data are not here, or hold latents."""
    try:
        read(data.open(data.splits[0]), [0])
    except InputError as error:
        return str(error)
    return None


def references(data: Data, metrics: Sequence[Metric]) -> dict[str, Reference]:
    """For each metric's name, the real samples that it compares with; computed once per process."""
    identity = data.identity()
    for metric in metrics:
        if not metric.needs_reference:
            _REFERENCES[identity, metric] = Reference("none", 0, {})
    missing = [metric for metric in metrics if (identity, metric) not in _REFERENCES]
    for in_full in (False, True):
        group = [metric for metric in missing if bool(metric.rows and metric.keeps_real) == in_full]
        if group:
            split, indices = _reference_indices(data, in_full)
            for metric in group:
                if len(indices) < metric.least:
                    raise too_few(metric, len(indices), f"the {split} split of {describe(data)}")
            summed = {metric: metric if in_full else replace(metric, rows=()) for metric in group}
            measured = measure_source(exact(data, data.open(split)), indices, list(summed.values()))
            what = f"{len(indices)} examples of the {split} split"
            for metric in group:
                _REFERENCES[identity, metric] = Reference(what, len(indices), measured.sums(summed[metric]))
    return {metric.name: _REFERENCES[identity, metric] for metric in metrics}


def too_few(metric: Metric, count: int, where: str) -> InputError:
    """The error for fewer real images than a metric can compare with."""
    return InputError(
        f"{metric.name} takes at least {metric.least} real images to compare with, but {where} has {count}: "
        "take other data, or leave this metric out."
    )


def real_values(data: Data, metrics: Sequence[Metric], count: int, given: dict[str, Reference] | None = None) -> Real:
    """What `count` real samples get: numbers to judge others by, as those of a perfect model would be.

    They are held-out ones, or drawn with replacement where there are fewer than `count`. Without a held-out split
    they are drawn with replacement from the training split, and what the features saw of it in their own training
    is left out where that matters: for a classifier's labels. `given` stands for the reference where statistics of a
    file do; such numbers are not kept for another call.
    """
    identity = data.identity()
    if data.held_out is None:
        metrics = [metric for metric in metrics if not metric.judges_training]
    if given is not None:
        for metric in metrics:
            _ROWS.pop((identity, metric, count), None)
    given = references(data, metrics) if given is None else given
    missing = [metric for metric in metrics if (identity, metric, count) not in _ROWS]
    split, sets, what = _real_indices(data, count)
    if missing:
        source = exact(data, data.open(split))
        found = [measure_source(source, indices, missing) for indices in sets]
        for metric in missing:
            unseen = metric.features.unseen(len(source)) if metric.needs_labels and split == data.splits[0] else None
            if unseen is not None:
                all_unseen = measure_source(source, np.flatnonzero(unseen), [metric])
                values = [metric.values(all_unseen.sums(metric), given[metric.name], count)]
            else:
                values = [metric.values(one.sums(metric), given[metric.name], count) for one in found]
            mean = {name: float(np.mean([one[name] for one in values])) for name in values[0]}
            _ROWS[identity, metric, count] = mean
    return Real({k: v for metric in metrics for k, v in _ROWS[identity, metric, count].items()}, what)


def _reference_indices(data: Data, in_full: bool) -> tuple[str, Int[np.ndarray, " count"]]:
    train = data.splits[0]
    length = len(data.open(train))
    if length > ENDLESS:
        split = data.held_out or train
        return split, np.arange(min(DRAWN, len(data.open(split))))
    if in_full and length > DRAWN:
        return train, np.sort(np.random.default_rng(0).choice(length, DRAWN, replace=False))
    return train, np.arange(length)


def _real_indices(data: Data, count: int) -> tuple[str, list[Any], str]:
    """The split, one or more sets of indices, and a line about them."""
    rng, train = np.random.default_rng(0), data.splits[0]
    length = len(data.open(train))
    if length > ENDLESS:
        # Index i of such data has label i modulo the number of classes: each set is balanced.
        classes = data.num_classes
        turns = [rng.integers(0, length // classes, count) for _ in range(DRAWS)]
        sets = [turn * classes + np.arange(count) % classes for turn in turns]
        return train, sets, f"the mean of {DRAWS} sets of {count} examples of the {train} split"
    if data.held_out is None:
        return train, [rng.integers(0, length, count)], f"{count} drawn with replacement from the {train} split"
    held_out = len(data.open(data.held_out))
    of = f"the {held_out} of the {data.held_out} split"
    if count > held_out:
        return data.held_out, [rng.integers(0, held_out, count)], f"{count} drawn with replacement from {of}"
    return data.held_out, [rng.choice(held_out, count, replace=False)], f"{count} of {of}"


def measure_source(source: Source, indices: Any, metrics: Sequence[Metric]) -> Measurement:
    """Metrics of the examples at these indices, read and measured in chunks."""
    measurement = Measurement(metrics)
    size = chunk_size(read(source, indices[:1])[0].shape[1:])
    for start in range(0, len(indices), size):
        measurement.add(*read(source, indices[start : start + size]))
    return measurement
