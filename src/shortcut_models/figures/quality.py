"""The quality of several methods against steps."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from shortcut_models.views.canvas import new_figure, save


class Line(NamedTuple):
    """The quality of one method."""

    steps: list[int]
    values: list[list[float]]
    """For each number of steps, one value per seed."""
    meant: list[bool]
    """For each number of steps, whether the method is made for it."""


def draw_quality(path: Path, lines: dict[str, Line], metric: str, real: float, what: str = "images") -> None:
    """Write a PNG of quality against steps: means, the range over seeds, hollow where a method is not made for them.

    `real` is the value of as many real samples; `what` they are called.
    """
    figure = new_figure(7, 4.5)
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
    axes.axhline(real, color="grey", linestyle=":", linewidth=1, label=f"real {what}")
    every = sorted({step for line in lines.values() for step in line.steps})
    axes.set(xscale="log", yscale="log", xlabel=f"network calls per {what.removesuffix('s')}", ylabel=metric)
    axes.set_xticks(every, [str(step) for step in every])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    save(figure, path)
