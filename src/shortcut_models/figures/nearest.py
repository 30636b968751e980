"""Samples beside the training images that are nearest to them: does the model copy?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from shortcut_models.figures.base import Figure, Given
from shortcut_models.views.canvas import Row

CHUNK = 512
"""Training images that are compared at once."""


@dataclass(frozen=True, kw_only=True)
class Nearest(Figure):
    """A row per sample: itself and its neighbours; beside it a held-out example and its own, to judge that by.

    Distances are root mean squares in the network's range: of pixels, or of latents.
    """

    images: int = 20_000
    """The most training images that are searched; of more, so many are drawn by the seed."""
    neighbours: int = 4

    def draw(self, given: Given, path: Path) -> None:
        data, model = given.model.data, given.model
        labels = model.balanced_labels(given.shown)
        asked = {"sample": model.sample(labels, given.steps, given.guidance, given.seed)}
        if data.held_out is not None:
            asked["held-out"] = given.examples(data.held_out, given.indices(data.held_out, given.shown))[0]
        rows = min(map(len, asked.values()))
        searched = given.indices(data.splits[0], self.images)
        blocks: list[np.ndarray] = []
        notes: list[list[list[str]]] = []
        for x in asked.values():
            indices, distances = self.find(given, x[:rows], searched)
            near = given.examples(data.splits[0], indices.ravel())[0]
            drawn = given.picture(near)
            blocks += [given.picture(x[:rows])[:, None], drawn.reshape(*indices.shape, *drawn.shape[1:])]
            notes.append([["", *_notes(line)] for line in distances])
        lines = [
            Row("", [block[i] for block in blocks], [note for part in notes for note in part[i]]) for i in range(rows)
        ]
        titles = [title for name in asked for title in (name, "nearest training images, RMS distance")]
        whole = len(given.source(data.splits[0]))
        of = f"{len(searched):,} of " * (len(searched) < whole) + f"{whole:,} training images"
        given.view.draw_rows(path, lines, titles, f"searched: {of}; {given.budget}; {given.settings}")

    def find(
        self, given: Given, queries: Float[np.ndarray, "queries ..."], searched: Int[np.ndarray, " images"]
    ) -> tuple[Int[np.ndarray, "queries near"], Float[np.ndarray, "queries near"]]:
        """Indices of the nearest training examples, in order, and their distances; of equal ones the first."""
        train, flat = given.model.data.splits[0], queries.reshape(len(queries), -1)
        count = min(self.neighbours, len(searched))
        best, where = np.full((len(flat), count), np.inf), np.zeros((len(flat), count), np.int64)
        for start in range(0, len(searched), CHUNK):
            indices = searched[start : start + CHUNK]
            others = given.examples(train, indices)[0].reshape(len(indices), -1)
            for i, query in enumerate(flat):
                # The difference itself, not a product of matrices, which would lose what a copy is told by.
                found = np.square(others - query).mean(axis=1, dtype=np.float64)
                both, names = np.append(best[i], found), np.append(where[i], indices)
                order = np.argsort(both, kind="stable")[:count]
                best[i], where[i] = both[order], names[order]
        return where, np.sqrt(best)


def _notes(distances: np.ndarray) -> list[str]:
    """The distances in words; the first with a mark if it is less than a third of the second."""
    copied = len(distances) > 1 and bool(distances[0] < distances[1] / 3)
    return [f"{distance:.2f}" + " copy?" * (copied and i == 0) for i, distance in enumerate(distances)]


FIGURE = Nearest(
    needs_data=True,
    needs_single=True,
    how="Samples, and the training images nearest to each; where data are held out, the same for those on the right, "
    "which cannot be copies: samples should be about as far from the training images as they are. A first neighbour "
    'closer than a third of the second is marked "copy?". Distances are root mean squares of pixels (or latents), so '
    "that a shifted copy is not found.",
)
