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

    images: int = 50_000
    """The most training images that are searched; of more, so many are drawn by the seed."""
    neighbours: int = 4

    def draw(self, given: Given, path: Path) -> None:
        data, model = given.model.data, given.model
        labels = model.balanced_labels(given.shown)
        asked = {"sample": model.sample(labels, given.steps, given.guidance, given.seed)}
        if data.held_out is not None:
            asked["held-out"] = given.examples(data.held_out, given.indices(data.held_out, given.shown))[0]
        rows = min(map(len, asked.values()))
        queries = np.concatenate([x[:rows] for x in asked.values()])
        searched = given.indices(data.splits[0], self.images)
        indices, distances = self.find(given, queries, searched)
        shape = model.network.shape
        near = given.examples(data.splits[0], indices.ravel())[0].reshape(*indices.shape, *shape)
        blocks, notes = [], []
        for first in range(0, len(queries), rows):
            own, found = queries[first : first + rows], near[first : first + rows]
            blocks += [given.picture(own)[:, None], _by_row(given, found)]
            notes += [[[""] + [_note(line, i) for i in range(len(line))] for line in distances[first : first + rows]]]
        titles = [title for name in asked for title in (name, "nearest training images")]
        lines = [
            Row("", tuple(block[i] for block in blocks), tuple(note for part in notes for note in part[i]))
            for i in range(rows)
        ]
        whole = len(given.source(data.splits[0]))
        of = (
            f"{len(searched):,} of {whole:,} training images" if len(searched) < whole else f"{whole:,} training images"
        )
        given.view.draw_rows(path, lines, titles, f"searched: {of}; {given.budget}; {given.settings}")

    def find(
        self, given: Given, queries: Float[np.ndarray, "queries ..."], searched: Int[np.ndarray, " images"]
    ) -> tuple[Int[np.ndarray, "queries near"], Float[np.ndarray, "queries near"]]:
        """Indices of the nearest training examples, in order, and their distances; of equals the first."""
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


def _by_row(given: Given, found: np.ndarray) -> np.ndarray:
    drawn = given.picture(found.reshape(-1, *found.shape[2:]))
    return drawn.reshape(*found.shape[:2], *drawn.shape[1:])


def _note(distances: np.ndarray, index: int) -> str:
    copied = index == 0 and len(distances) > 1 and distances[0] < distances[1] / 3
    return f"{distances[index]:.2f}" + " copy?" * bool(copied)


FIGURE = Nearest(
    needs_data=True,
    needs_single=True,
    how="Samples, and the training images nearest to each; where data are held out, the same for those on the right, "
    "which cannot be copies: samples should be about as far from the training images as they are. A first neighbour "
    'closer than a third of the second is marked "copy?". Distances are root mean squares of pixels (or latents), so '
    "that a shifted copy is not found.",
)
