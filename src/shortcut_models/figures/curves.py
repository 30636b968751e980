"""Learning curves, from what the training logged."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_models.figures.base import Figure, Given
from shortcut_models.views.canvas import MARKERS, new_figure, ramp, save

VELOCITY = "d=0"


@dataclass(frozen=True, kw_only=True)
class Curves(Figure):
    """A panel per group of numbers ("error/d=0" is of the group "error"), a line per number, against images seen."""

    most: int = 6
    """Panels, and the first one always shows the errors by step size."""

    def lacks(self, given: Given) -> str | None:
        """No run folder, or one that has logged nothing yet."""
        if given.run is None or not (given.run / "metrics.jsonl").exists():
            return "there is no run folder with its metrics.jsonl, which has what it draws."
        return None if groups(read_metrics(given.run)) else "metrics.jsonl has no errors by step size yet."

    def draw(self, given: Given, path: Path) -> None:
        assert given.run is not None
        found = list(groups(read_metrics(given.run)).items())[: self.most]
        figure = new_figure(5.6 * min(len(found), 2), 4 * -(-len(found) // 2))
        panels = figure.subplots(-(-len(found) // 2), min(len(found), 2), squeeze=False).flat
        for (group, lines), panel in zip(found, panels, strict=False):
            _draw(panel, group, lines)
        for panel in list(panels)[len(found) :]:
            panel.axis("off")
        save(figure, path)


Lines = dict[str, list[tuple[float, float]]]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; one that a kill cut short is left out."""
    rows = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "images" in row:
            rows.append(row)
    return rows


def groups(rows: list[dict[str, Any]]) -> dict[str, Lines]:
    """The numbers called "group/name", by group and name: (images, value), those that are finite; errors first."""
    found: dict[str, Lines] = {"error": {}}
    for row in rows:
        for key, value in row.items():
            group, slash, name = key.partition("/")
            if slash and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(group, {}).setdefault(name, []).append((row["images"], value))
    return {group: lines for group, lines in found.items() if lines}


def _draw(panel: Any, group: str, lines: Lines) -> None:
    from matplotlib.ticker import EngFormatter  # Slow to import.

    ordered = [name for name in lines if name != VELOCITY]
    colours = dict(zip(ordered, ramp(len(ordered)), strict=True)) | {VELOCITY: "black"}
    for name, marker in zip(lines, MARKERS * len(lines), strict=False):
        images, values = zip(*lines[name], strict=True)
        label = name.replace("<=", " ≤ ").replace("=", " = ")
        style = "--" if name == VELOCITY else "-"
        every = max(1, len(images) // 10)
        panel.plot(
            images, values, style, color=colours[name], marker=marker, markersize=4, markevery=every, label=label
        )
    what = "mean squared error since the row before" if group == "error" else group
    panel.set(title=f"{group} in training", xlabel="images seen", ylabel=what)
    if all(value > 0 for line in lines.values() for _, value in line):
        panel.set_yscale("log")
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(alpha=0.25)
    panel.legend(fontsize=8)


FIGURE = Curves(
    needs_decoding=False,
    how="The mean squared error of each step size as it was logged, on training examples and with the weights in "
    "training. Errors of jumps are against targets that the network makes itself: they may rise while it learns.",
)
