"""Measure a model at several step budgets, with the same noise and labels for each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from shortcut_models.data.pipeline import to_uint8
from shortcut_models.errors import InputError
from shortcut_models.metrics.digits import DigitMetrics
from shortcut_models.metrics.glyphs import GlyphMetrics
from shortcut_models.model import Model

METRICS = {"digits": DigitMetrics, "glyphs": GlyphMetrics}
"""For each dataset, how its images are measured."""


class Evaluation(NamedTuple):
    """The numbers, ready for JSON, and the first images behind them."""

    report: dict[str, Any]
    images: dict[int, np.ndarray]
    """For each budget, uint8 (classes, H, W, C): one image of each class, from the same noise."""


def evaluate(
    model: Model, dataset: str, budgets: Sequence[int], count: int, guidance: float = 1.0, seed: int = 0
) -> Evaluation:
    """Draw `count` images with balanced labels for each budget of steps, and measure them.

    Raises InputError if the dataset has no metrics, or for fewer than two images or one step.
    """
    if dataset not in METRICS:
        raise InputError(f"dataset {dataset!r} has no metrics yet: those with are {', '.join(METRICS)}.")
    if count < max(2, model.num_classes):
        raise InputError(f"count is {count}, but measuring takes at least {max(2, model.num_classes)} images.")
    metrics = METRICS[dataset]()
    labels = np.arange(count) % model.num_classes
    found, shown = {}, {}
    for steps in tqdm(budgets, unit="budget", desc="evaluating"):
        images = to_uint8(model.sample(labels, steps, guidance, seed))
        found[str(steps)] = metrics.measure(images, labels)
        shown[steps] = images[: model.num_classes]
    report = {"steps": found, "real": metrics.floor(count)}
    return Evaluation(report, shown)


def read_report(path: Path) -> dict[str, Any] | None:
    """An earlier report, or None if there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def table(report: dict[str, Any]) -> str:
    """The report as lines of text: a row per budget, a column per metric."""
    names = list(next(iter(report["steps"].values())))
    rows = [["steps", *names]]
    rows += [[steps, *(f"{values[name]:.3f}" for name in names)] for steps, values in report["steps"].items()]
    rows.append(["real", *(f"{value:.3f}" for value in report["real"].values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
