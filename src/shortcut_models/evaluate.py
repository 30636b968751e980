"""Measure a model at several step budgets, with the same noise and labels for each."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from shortcut_models import catalogue
from shortcut_models.data.base import Data
from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Labels, Metric, Reference, Statistics, to_bytes
from shortcut_models.metrics.measure import check_metrics, chunk_size
from shortcut_models.metrics.references import real_values, references, sample_shape
from shortcut_models.metrics.saved import Saved
from shortcut_models.metrics.statistics import read_stats, reference_of

SHOWN_POINTS = 2000


class Sampler(Protocol):
    """What is needed of a model."""

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); num_classes itself is the null label."""
        ...

    def sample(self, labels: Any, steps: int, guidance: float, seed: int, /, *, first: int) -> np.ndarray:
        """One sample per label; sample i is the one that (seed, first + i) gives."""
        ...

    def decode(self, x: np.ndarray, /) -> np.ndarray:
        """Samples as people see them: images in [-1, 1], or points as they are."""
        ...


class Evaluation(NamedTuple):
    """The numbers, ready for JSON, and the first samples behind them."""

    report: dict[str, Any]
    samples: dict[int, np.ndarray]
    """For each budget, from the same noise: uint8 images (classes, H, W, C), one of each class; or the first points."""


def evaluate(
    model: Sampler,
    data: Data,
    budgets: Sequence[int],
    count: int,
    guidance: float = 1.0,
    seed: int = 0,
    *,
    metrics: Sequence[str] | None = None,
    labels: Labels | None = None,
    inception: Path | None = None,
    any_inception: bool = False,
    stats: Path | None = None,
    stats_protocol: str | None = None,
    resume: Path | None = None,
    model_key: str = "",
) -> Evaluation:
    """Draw `count` samples for each budget of steps, and measure them.

    Samples are drawn and measured in chunks: memory does not grow with their number, but for metrics that need all
    features. `metrics` are names of the catalogue, by default those of the data set. `labels` are balanced, or drawn
    at random, or "none" for samples of no class; by default as the metrics' protocols say. Without labels, what
    compares with them is left out, and the report says so. `inception` is a file of Inception's weights (any with the
    right tensors if `any_inception`), and `stats` a file of reference statistics, whose protocol `stats_protocol` says
    if it does not; without it the reference is measured from the data set. With `resume`, a folder of its own, an
    evaluation that was killed goes on where it was and ends with the same numbers, if all is as it was: `model_key`
    says which weights are measured. The folder is empty at the end.

    Raises InputError for unknown metrics or such as do not fit the samples, for fewer than two samples or fewer than
    classes, or if the classes of model and data differ.
    """
    data = data.shows()
    chosen = [catalogue.find("metric", catalogue.METRICS, name) for name in metrics or data.metrics]
    shape = sample_shape(data)
    check_metrics(chosen, shape)
    labels = labels or _labels_of(chosen)
    if labels != "none" and model.num_classes != data.num_classes:
        raise InputError(
            f"the model has {model.num_classes} classes, but the data set has {data.num_classes}: "
            "their labels mean different things; measure without labels."
        )
    least = max(2, model.num_classes if labels != "none" else 0)
    if count < least:
        raise InputError(f"count is {count}, but measuring takes at least {least} samples.")
    kept = [metric for metric in chosen if labels != "none" or not metric.needs_labels]
    if not kept:
        raise InputError(f"without labels nothing is left to measure of {', '.join(m.name for m in chosen)}.")
    asked = choose_labels(labels, count, model.num_classes, seed)
    kept = [replace(metric, features=metric.features.ready(inception, any_inception)) for metric in kept]
    given = _references(data, kept, read_stats(stats, stats_protocol) if stats else None)
    key = {
        "data": data.identity(),
        "metrics": [_told(metric) for metric in kept],
        "settings": [count, guidance, seed, labels, *budgets],
        "model": model_key,
    }
    saved = Saved(resume, key)
    found, shown = saved.found, saved.shown
    size = chunk_size(shape)
    for steps in tqdm(budgets, unit="budget", desc="evaluating"):
        if str(steps) in found:
            continue
        measurement, start = saved.measurement(kept, steps)
        for first in range(start, count, size):
            part = asked[first : first + size]
            samples = np.asarray(model.decode(model.sample(part, steps, guidance, seed, first=first)))
            measurement.add(samples, part)
            if first == 0:
                shown[steps] = _shown(samples, data, max(model.num_classes, 1))
            saved.keep(steps, measurement)
        found[str(steps)] = measurement.values(given)
        saved.keep(None, None)
    real = real_values(data, kept, count, given if stats else None)
    report: dict[str, Any] = {"steps": found, "real": real.values}
    if data.held_out is not None:
        report["ratio"] = {steps: _ratios(values, real.values, kept) for steps, values in found.items()}
    left_out = [metric.name for metric in chosen if metric.name not in given]
    if left_out:
        report["left_out"] = f"{', '.join(left_out)}: no labels were asked for, so there are none to agree with."
    report["about"] = {
        "labels": labels,
        "real": real.what,
        "reference": {metric.name: given[metric.name].what for metric in kept if metric.needs_reference},
    }
    _tell_perfect(report, kept, given, count)
    saved.remove()
    return Evaluation(report, shown)


def _tell_perfect(report: dict[str, Any], metrics: Sequence[Metric], given: dict[str, Reference], count: int) -> None:
    """Add what a perfect model would get, where the metrics know it."""
    known = {metric.name: metric.perfect(given[metric.name], count) for metric in metrics}
    found = {name: value for name, value in known.items() if value is not None}
    if not found:
        return
    report["perfect"] = {f"{name}-{count}": value for name, (value, _) in found.items()}
    low = [f"{least} samples, twice the features of {name}" for name, (_, least) in found.items() if count < least]
    if low:
        report["about"]["perfect"] = f"first order in 1 / N: too low below {', '.join(low)}"


def _told(metric: Metric) -> str:
    """A metric with the network behind it, whose numbers differ with its weights."""
    return f"{metric.name} {getattr(getattr(metric.features, 'network', None), 'sha256', '')}"


def _references(data: Data, metrics: Sequence[Metric], statistics: Statistics | None) -> dict[str, Reference]:
    """For each metric's name what a file says of real samples, or else the data set itself."""
    found = {metric.name: reference_of(statistics, metric) if statistics else None for metric in metrics}
    known = {name: reference for name, reference in found.items() if reference is not None}
    if statistics and not known:
        raise InputError(f"{statistics.path} serves none of {', '.join(found)}: choose metrics such as fid-adm.")
    measured = references(data, [metric for metric in metrics if metric.name not in known])
    return {metric.name: known.get(metric.name) or measured[metric.name] for metric in metrics}


def choose_labels(labels: Labels, count: int, classes: int, seed: int) -> Int[np.ndarray, " count"]:
    """A label for each sample: balanced in turn, uniform at random, or the null label, which is `classes`."""
    if labels == "none":
        return np.full(count, classes)
    if labels == "random":
        return np.random.default_rng([seed, 0x6C6162656C73]).integers(0, classes, count)
    return np.arange(count) % classes


def _labels_of(metrics: Sequence[Metric]) -> Labels:
    """The labels that all protocols want."""
    wanted = {metric.labels: metric.name for metric in metrics}
    if len(wanted) > 1:
        words = " but ".join(f"{name} takes {labels} labels" for labels, name in wanted.items())
        raise InputError(f"{words}: say which labels to take, or measure them one after the other.")
    return next(iter(wanted))


def _shown(samples: np.ndarray, data: Data, classes: int) -> np.ndarray:
    return to_bytes(samples[:classes]) if data.view == "images" else samples[:SHOWN_POINTS]


def _ratios(values: dict[str, float], real: dict[str, float], metrics: Sequence[Metric]) -> dict[str, float]:
    """Each distance by that of as many real samples."""
    distances = tuple(f"{metric.name}-" for metric in metrics if metric.is_distance)
    return {
        name: value / real[name]
        for name, value in values.items()
        if name.startswith(distances) and real.get(name, 0.0) > 0
    }


def read_report(path: Path) -> dict[str, Any] | None:
    """An earlier report, or None if there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def table(report: dict[str, Any]) -> str:
    """The report as lines of text: a row per budget, a column per metric, and distances by those of real samples."""
    names, ratios = list(next(iter(report["steps"].values()))), report.get("ratio", {})
    measured = {name for values in ratios.values() for name in values}
    rows = [["steps", *(head for name in names for head in (name, "ratio")[: 1 + (name in measured)])]]
    for steps, values in [*report["steps"].items(), ("real", report["real"])]:
        cells = [steps]
        for name in names:
            cells.append(f"{values[name]:.3f}" if name in values else "")
            if name in measured:
                ratio = ratios.get(steps, {}).get(name)
                cells.append("" if ratio is None else f"{ratio:.2f}")
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    left_out = [f"left out: {report['left_out']}"] if "left_out" in report else []
    return "\n".join(lines + left_out)
