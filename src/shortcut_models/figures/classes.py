"""A sheet of samples, a row per class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.figures.base import Figure, Given, Labels
from shortcut_models.views.canvas import Row


@dataclass(frozen=True, kw_only=True)
class Classes(Figure):
    """Samples of every class, or of classes evenly chosen; plain samples where the model knows no class."""

    most: int = 16
    """Classes on the sheet."""

    def draw(self, given: Given, path: Path) -> None:
        model, columns = given.model, given.shown
        known = 1 if model.unconditional else model.num_classes
        labels = np.linspace(0, known - 1, min(known, self.most)).round().astype(np.int32)
        if known == 1:  # No class to tell apart: as many rows as columns, none with a name.
            labels = model.balanced_labels(self.most // 2 if given.view.SINGLE else 1)
        drawn = given.samples(np.repeat(labels, columns))
        names = given.class_names(labels) if known > 1 else [""] * len(labels)
        of = f"{len(labels)} of {known} classes, " if len(labels) < known else ""
        blocks = {f"{of}{given.budget}": list(drawn.reshape(len(labels), columns, *drawn.shape[1:]))}
        if not given.view.SINGLE:  # What a sample shows, only the data beside it tell.
            blocks |= self._data(given, labels)
        rows = [Row(name, block) for name, *block in zip(names, *blocks.values(), strict=True)]
        given.view.draw_rows(path, rows, list(blocks), given.settings)

    @staticmethod
    def _data(given: Given, labels: Labels) -> dict[str, list[np.ndarray]]:
        """Examples of the classes, if they are at hand."""
        try:
            x1, found = given.examples(given.split, given.indices(given.split, 2 * given.shown * len(labels)))
        except InputError:
            return {}
        drawn = given.picture(x1)
        return {"data": [drawn[found == label][: given.shown] for label in labels]}


FIGURE = Classes(
    how="Samples of each class, each from noise of its own. Look for variety, and for samples of another class; "
    "samples that look alike mean that the model has lost a part of the data.",
)
