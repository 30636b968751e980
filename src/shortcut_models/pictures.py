"""Pictures of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from shortcut_models.files import whole_file

LEAST_SIDE = 48
"""Pixels; smaller images are enlarged by a whole factor, so that people can see them."""
MOST_CLASSES = 16
"""Columns of a picture of budgets; of more classes, so many are shown, evenly chosen."""


def draw_budgets(
    path: Path, images: dict[int, UInt8[np.ndarray, "classes height width channels"]], names: Sequence[str] = ()
) -> None:
    """Write a labelled PNG: a row per step budget, a column per class, at most MOST_CLASSES of them.

    `names` are the classes' titles, their numbers if there are fewer names than classes.
    """
    from matplotlib.figure import Figure  # Slow to import.

    rows, count = len(images), len(next(iter(images.values())))
    shown = np.linspace(0, count - 1, min(count, MOST_CLASSES)).round().astype(int)
    names = names if len(names) >= count else [str(number) for number in range(count)]
    figure = Figure(figsize=(0.62 * len(shown) + 1.1, 0.62 * rows + 0.7), dpi=150, layout="constrained")
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for row, (steps, line) in enumerate(images.items()):
        for column, image in enumerate(line[shown]):
            cell = axes[row, column]
            cell.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(names[shown[column]], fontsize=9)
            if column == 0:
                name = f"{steps} step" + "s" * (steps > 1)
                cell.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle("class", fontsize=9)
    with whole_file(path) as aside:
        figure.savefig(aside, format="png")


def draw_grid(path: Path, images: UInt8[np.ndarray, "count height width channels"], columns: int) -> None:
    """Write a PNG of the images in reading order, `columns` in a row, with a thin border."""
    factor = -(-LEAST_SIDE // images.shape[1]) if images.shape[1] < LEAST_SIDE else 1
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=127)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    blank = np.full((rows * columns - count, height, width, channels), 127, np.uint8)
    grid = np.concatenate([images, blank]).reshape(rows, columns, height, width, channels)
    with whole_file(path) as aside:
        to_image(grid.swapaxes(1, 2).reshape(rows * height, columns * width, channels)).save(aside, format="png")


def to_image(pixels: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    """A grey or colour image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


class Line(NamedTuple):
    """The quality of one method."""

    steps: list[int]
    values: list[list[float]]
    """For each number of steps, one value per seed."""
    meant: list[bool]
    """For each number of steps, whether the method is made for it."""


def draw_quality(path: Path, lines: dict[str, Line], metric: str, real: float) -> None:
    """Write a PNG of quality against steps: means, the range over seeds, hollow where a method is off-label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for index, (name, line) in enumerate(lines.items()):
        mean = np.array([np.mean(values) for values in line.values])
        colour = f"C{index}"
        axes.plot(line.steps, mean, color=colour, label=name, linewidth=1.2)
        axes.fill_between(
            line.steps, [min(v) for v in line.values], [max(v) for v in line.values], color=colour, alpha=0.2
        )
        for step, value, meant in zip(line.steps, mean, line.meant, strict=True):
            axes.plot(step, value, "o", color=colour, markerfacecolor=colour if meant else "white", markersize=5)
    axes.axhline(real, color="grey", linestyle=":", linewidth=1, label="real images")
    every = sorted({step for line in lines.values() for step in line.steps})
    axes.set(xscale="log", yscale="log", xlabel="network calls per image", ylabel=metric)
    axes.set_xticks(every, [str(step) for step in every])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    with whole_file(path) as aside:
        figure.savefig(aside, format="png")


def draw_methods(path: Path, images: dict[str, dict[int, UInt8[np.ndarray, "classes height width channels"]]]) -> None:
    """Write a labelled PNG of the same noise under every method and budget: a row each, a column for ten classes."""
    from matplotlib.figure import Figure

    rows = [(name, steps, line) for name, budgets in images.items() for steps, line in budgets.items()]
    count = len(rows[0][2])
    columns = min(count, 10)
    shown = np.linspace(0, count - 1, columns).round().astype(int)
    figure = Figure(figsize=(0.42 * columns + 2.4, 0.42 * len(rows) + 0.2), dpi=150)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=2.3 / figure.get_figwidth(), right=0.99, bottom=0.005, top=0.995, hspace=0.06, wspace=0.06
    )
    for row, (name, steps, line) in enumerate(rows):
        for cell, image in zip(axes[row], line[shown], strict=True):
            cell.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
        text = f"{name}, {steps}" if row == 0 or rows[row - 1][0] != name else str(steps)
        axes[row, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
    with whole_file(path) as aside:
        figure.savefig(aside, format="png")
