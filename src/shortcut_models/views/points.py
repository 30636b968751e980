"""Points of any number of coordinates: scatters of the first two, or a histogram of the only one, and arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int
from numpy.typing import ArrayLike

from shortcut_models.errors import InputError
from shortcut_models.outputs import check_file
from shortcut_models.views.canvas import COLOURS, Row, join_notes, new_figure, save, save_arrays, write_foot

NOUN = "points"
SINGLE = False
READABLE = 1000
MOST_POINTS = 2000
"""Points in a panel of a picture, so that its shapes are not painted over."""
MOST_PANELS = 6
"""Panels side by side in a picture of budgets."""
SIDE = 2.4
"""Inches of a panel."""
BINS = 60
"""Bars of a histogram."""

Points = Float32[np.ndarray, "_ _"]


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise InputError unless samples are coordinates in a row."""
    if len(shape) != 1 or not shape[0]:
        raise InputError(
            f"samples of shape {shape} are no points (coordinates,): let `view` of the data set be images, for height, "
            "width and channels, or arrays for any shape."
        )


def to_samples(decoded: ArrayLike) -> Points:
    """The points as they are; raises InputError for another shape."""
    points = np.asarray(decoded, np.float32)
    check_shape(points.shape[1:])
    return points


def check_out(out: Path) -> None:
    """Raise InputError unless `out` is free, and a .png or an .npz."""
    check_file(out, "a scatter of the points")


def write(out: Path, samples: Points, labels: Int[np.ndarray, " count"]) -> None:
    """Write a scatter, coloured by label (.png), or arrays `points` and `labels` (.npz)."""
    check_out(out)
    if out.suffix.lower() == ".npz":
        save_arrays(out, points=samples, labels=labels)
        return
    figure = new_figure(2 * SIDE, 2 * SIDE)
    panel = figure.subplots()
    limits = _limits([samples])
    for index, label in enumerate(np.unique(labels)):
        # Ten colours come round again, as the labels do.
        _draw(panel, samples[labels == label], limits, f"C{index % 10}", size=6)
    write_foot(figure, _said(samples))
    save(figure, out)


def examples(data: Any) -> Points | None:
    """The first points of a data set's training split; None if it is not at hand."""
    try:
        source = data.open(data.splits[0])
    except InputError:
        return None
    return to_samples([source[index]["x"] for index in range(min(len(source), MOST_POINTS))])


def draw_budgets(
    path: Path,
    samples: dict[int, Points],
    names: Sequence[str] | None = (),
    examples: Points | None = None,
    foot: str = "",
) -> None:
    """Write a PNG with a scatter per step budget, on the same scale; the data's own comes first, if given.

    The names of classes are not shown.
    """
    del names
    panels = {f"{steps} step" + "s" * (steps > 1): points for steps, points in samples.items()}
    if examples is not None:
        panels = {"data": examples, **panels}
    limits = _limits([*samples.values()] if examples is None else [examples])
    lines = -(-len(panels) // MOST_PANELS)
    across = -(-len(panels) // lines)
    figure = new_figure(SIDE * across, (SIDE + 0.3) * lines)
    axes = figure.subplots(lines, across, squeeze=False)
    for panel, (title, points) in zip(axes.flat, panels.items(), strict=False):
        _draw(panel, points, limits, "C7" if title == "data" else "C0")
        panel.set_title(title, fontsize=9)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    write_foot(figure, join_notes(_said(next(iter(samples.values()))), foot))
    save(figure, path)


def draw_methods(path: Path, samples: dict[str, dict[int, Points]]) -> None:
    """Write a PNG with a scatter per method and budget: a row a method, a column a budget, on the same scale."""
    budgets = list(dict.fromkeys(steps for lines in samples.values() for steps in lines))
    some = next(points for lines in samples.values() for points in lines.values())
    # The middle one of all scales, so that a method that fails does not make the others small.
    limits = sorted(_limits([points]) for lines in samples.values() for points in lines.values())
    middle = limits[len(limits) // 2]
    figure = new_figure(0.7 * SIDE * len(budgets) + 1.6, 0.7 * SIDE * len(samples) + 0.3)
    axes = figure.subplots(len(samples), len(budgets), squeeze=False)
    for index, (row, (name, lines)) in enumerate(zip(axes, samples.items(), strict=True)):
        for panel, steps in zip(row, budgets, strict=True):
            _draw(panel, lines.get(steps, some[:0]), middle, "C0")
            if index == 0:
                panel.set_title(f"{steps} step" + "s" * (steps > 1), fontsize=9)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    write_foot(figure, _said(some))
    save(figure, path)


def draw_rows(path: Path, rows: Sequence[Row], titles: Sequence[str], foot: str = "") -> None:
    """Write a PNG with a scatter per row and block, on the same scale: rows stand side by side, at most 9 of them."""
    across = min(len(rows), 9)
    lines = -(-len(rows) // across) * len(titles)
    limits = sorted(_limits([block]) for row in rows for block in row.blocks)[len(rows) * len(titles) // 2]
    figure = new_figure(0.75 * SIDE * across + 1, 0.75 * SIDE * lines + 0.6)
    axes = figure.subplots(lines, across, squeeze=False)
    for index, row in enumerate(rows):
        first, column = index // across * len(titles), index % across
        for offset, (title, points) in enumerate(zip(titles, row.blocks, strict=True)):
            panel = axes[first + offset, column]
            _draw(panel, points, limits, COLOURS[0])
            if offset == 0:
                panel.set_title(row.name, fontsize=9)
            if column == 0:
                panel.set_ylabel(title, fontsize=9)
    for panel in axes[-len(titles) :, (len(rows) - 1) % across + 1 :].flat:
        panel.axis("off")
    write_foot(figure, join_notes(_said(np.asarray(rows[0].blocks[0])), foot))
    save(figure, path)


def _draw(panel: Any, points: Points, limits: tuple[float, float], colour: str, size: float = 2) -> None:
    """A scatter of the first two coordinates, or a histogram of the only one."""
    shown = points[:MOST_POINTS, :2]
    if shown.shape[1] == 2:
        panel.scatter(*shown.T, s=size, color=colour, alpha=0.6, linewidths=0)
        panel.set(xlim=limits, ylim=limits, xticks=[], yticks=[], aspect="equal")
    else:
        panel.hist(shown[np.isfinite(shown)], bins=BINS, range=limits, color=colour, alpha=0.6)
        panel.set(xlim=limits, xticks=[], yticks=[])


def _said(points: Points) -> str:
    """What a picture does not show of its points."""
    return f"the first two of {points.shape[1]} coordinates" * (points.shape[1] > 2)


def _limits(sets: Sequence[Points]) -> tuple[float, float]:
    """A square around the points as they are drawn, but for the outermost, which would make all others small."""
    points = np.concatenate([points[:, :2] for points in sets])
    points = points[np.isfinite(points).all(axis=1)]
    reach = float(np.quantile(np.abs(points), 0.995)) * 1.15 if points.size else 1.0
    return (-reach, reach) if reach else (-1.0, 1.0)
