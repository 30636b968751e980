"""The figure of quality against steps."""

from pathlib import Path

import matplotlib.lines
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shortcut_models.figures import Line, draw_quality, quality


def test_quality_is_the_mean_over_seeds_hollow_where_a_method_is_not_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Figure] = []
    monkeypatch.setattr(quality, "save", lambda figure, _: made.append(figure))
    lines = {
        "flow": Line([1, 128], [[4.0, 6.0], [0.1, 0.3]], [False, True]),
        "jump": Line([1, 4], [[0.2, 0.2], [0.1, 0.1]], [True, True]),
    }
    draw_quality(tmp_path / "a.png", lines, "energy-1000", 0.05, "points")
    axes: Axes = made[0].axes[0]
    drawn: list[matplotlib.lines.Line2D] = list(axes.lines)
    by_label = {str(line.get_label()): line for line in drawn}
    assert np.asarray(by_label["flow"].get_ydata()) == pytest.approx([5.0, 0.2])
    assert np.asarray(by_label["jump"].get_ydata()) == pytest.approx([0.2, 0.1])
    assert np.asarray(by_label["real points"].get_ydata()).tolist() == [0.05, 0.05]
    points = [line for line in drawn if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in points] == ["white", "C0", "C1", "C1"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4", "128"]
    assert axes.get_xlabel() == "network calls per point"
    assert axes.get_ylabel() == "energy-1000"


def test_a_figure_is_written(tmp_path: Path) -> None:
    draw_quality(tmp_path / "a.png", {"flow": Line([1, 4], [[1.0], [0.5]], [True, True])}, "distance", 0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
