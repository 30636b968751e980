"""Samples between two noises: how smoothly the flow map turns noise into data."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.figures.base import Figure, Given
from shortcut_models.model import Model
from shortcut_models.views.canvas import Row


@dataclass(frozen=True, kw_only=True)
class Interpolation(Figure):
    """Rows of samples whose noise turns from one to another; every row has its own two, and one class."""

    columns: int = 11
    """Samples in a row, both ends among them."""
    unlabelled: bool = False
    """Draw samples of no class, whatever the model learnt."""

    def draw(self, given: Given, path: Path) -> None:
        rows = given.shown
        labels = given.model.balanced_labels(rows)
        if self.unlabelled:
            labels = np.full_like(labels, given.model.null_label)
        ends = given.noise(2 * rows)
        # On the circle through both, so that every point is noise of unit variance (paper, section 5.6): a a' + b b'.
        angles = np.linspace(0, np.pi / 2, self.columns)
        between = [np.cos(angle) * ends[0::2] + np.sin(angle) * ends[1::2] for angle in angles]
        # One call a column: row i keeps its fresh noise where jumps are noised back.
        drawn = [
            given.picture(given.model.sample(labels, given.steps, given.guidance, given.seed, noise=noise))
            for noise in between
        ]
        names = given.class_names(labels)
        lines = [Row(name, (line,)) for name, line in zip(names, np.stack(drawn, axis=1), strict=True)]
        given.view.draw_rows(path, lines, (f"from one noise to another, {given.budget}",), given.settings)


FIGURE = Interpolation(
    needs_single=True,
    how="Each row goes from the sample of one noise (left) to that of another (right), for one class. A good map "
    "changes smoothly and passes through samples; blends of two images are a sign of averaging.",
)


def draw_interpolation(
    model: Model,
    path: Path,
    count: int = 8,
    steps: int = 4,
    seed: int = 0,
    guidance: float = 1.0,
    unlabelled: bool = False,
) -> None:
    """Write a PNG of `count` rows, each from the sample of one noise to that of another; see `Interpolation`.

    Raises InputError for samples that say nothing one by one, such as points, and for settings that the model
    cannot be sampled with.
    """
    given = Given(model=model, count=count, steps=steps, seed=seed, guidance=guidance)
    reason = FIGURE.lacks(given)
    if reason:
        raise InputError(f"no interpolation can be drawn: {reason}")
    replace(FIGURE, unlabelled=unlabelled).draw(given, path)
