"""Points are written as they are, and scatters show them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from shortcut_models import InputError
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.views import VIEWS, View, get_view
from shortcut_models.views.canvas import Row
from shortcut_models.views.points import (
    MOST_POINTS,
    check_out,
    draw_budgets,
    draw_methods,
    draw_rows,
    examples,
    to_samples,
    write,
)

LABELS = np.arange(8, dtype=np.int32) % 2


def some_points(count: int = 8, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(count).uniform(-1, 1, (count, 2)).astype(np.float32)


class Drawn:
    """What was asked of matplotlib, panel by panel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[np.ndarray] = []
        self.colours: list[str] = []
        self.titles: list[str] = []
        self.limits: list[tuple[float, float]] = []
        monkeypatch.setattr(Axes, "scatter", self.scatter)
        monkeypatch.setattr(Axes, "set_title", lambda _, title, **__: self.titles.append(title))
        set_xlim = Axes.set_xlim
        monkeypatch.setattr(Axes, "set_xlim", lambda axes, at: (self.limits.append(at), set_xlim(axes, at)))

    def scatter(self, x: Any, y: Any, color: str, **_: object) -> None:
        self.points.append(np.stack([x, y], axis=1))
        self.colours.append(color)


def test_every_view_of_the_data_seam_is_there() -> None:
    assert set(VIEWS) == {"images", "points", "arrays"}
    for name in VIEWS:
        for function in [name for name, value in vars(View).items() if callable(value) and name[0] != "_"]:
            assert callable(getattr(get_view(name), function))
        assert get_view(name).NOUN.endswith("s")
        assert get_view(name).READABLE > 0
    with pytest.raises(InputError, match="view 'audio' of the data set is unknown: the names are images, points, arr"):
        get_view("audio")


def test_points_are_kept_as_float32_and_only_points() -> None:
    points = some_points()
    found = to_samples(points.astype(np.float64).tolist())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, points)
    assert to_samples(np.zeros((4, 3), np.float32)).shape == (4, 3)
    with pytest.raises(InputError, match=r"samples of shape \(3, 5\) are no points \(coordinates,\): let `view` of"):
        to_samples(np.zeros((4, 3, 5), np.float32))


def test_arrays_hold_the_points_and_their_labels(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "a.npz", some_points(), LABELS)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.npz"]
    with np.load(tmp_path / "deep" / "a.npz") as found:
        assert set(found) == {"points", "labels"}
        np.testing.assert_array_equal(found["points"], some_points())
        assert found["points"].dtype == np.float32
        assert found["labels"].tolist() == LABELS.tolist()


def test_a_scatter_has_a_colour_for_each_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    write(tmp_path / "a.png", some_points(), LABELS)
    assert len(set(drawn.colours)) == 2
    np.testing.assert_array_equal(drawn.points[0], some_points()[::2])
    np.testing.assert_array_equal(drawn.points[1], some_points()[1::2])


def test_a_picture_shows_where_the_points_are(tmp_path: Path) -> None:
    right = np.full((50, 2), 0.5, np.float32) * [1, -1]
    draw_budgets(tmp_path / "a.png", {1: right.astype(np.float32)}, (), some_points(500))
    with Image.open(tmp_path / "a.png") as picture:
        blue = np.asarray(picture)[..., :3].astype(int)
    rows, columns = np.nonzero((blue[..., 2] - blue[..., 0]) > 60)
    # Right of the middle of the second panel, and below its middle.
    assert columns.min() > 0.7 * blue.shape[1]
    assert rows.min() > 0.55 * blue.shape[0]


def test_budgets_stand_beside_the_data_on_its_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    many = some_points(MOST_POINTS + 9)
    draw_budgets(tmp_path / "a.png", {1: some_points(8, 50.0), 128: many}, ("no", "use"), some_points(9))
    assert drawn.titles == ["data", "1 step", "128 steps"]
    assert [len(points) for points in drawn.points] == [9, 8, MOST_POINTS]
    assert len(set(drawn.limits)) == 1
    assert 0.5 < drawn.limits[0][1] < 2  # Samples far away do not shrink it.
    draw_budgets(tmp_path / "b.png", {1: some_points()})
    assert drawn.titles[3:] == ["1 step"]


def test_methods_get_a_row_and_budgets_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    draw_methods(tmp_path / "a.png", {"flow": {1: some_points(1), 4: some_points(2)}, "jump": {4: some_points(3)}})
    assert drawn.titles == ["1 step", "4 steps"]
    assert [len(points) for points in drawn.points] == [1, 2, 0, 3]


def test_a_method_that_fails_does_not_make_the_others_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    draw_methods(
        tmp_path / "a.png", {"flow": {1: some_points(8), 4: some_points(9)}, "jump": {1: some_points(8, 99.0)}}
    )
    assert set(drawn.limits) == {drawn.limits[0]}
    assert 0.5 < drawn.limits[0][1] < 2


@pytest.mark.parametrize("bad", [np.full((5, 2), np.nan, np.float32), np.zeros((5, 2), np.float32)])
def test_a_network_that_has_collapsed_is_drawn_too(tmp_path: Path, bad: np.ndarray) -> None:
    draw_budgets(tmp_path / "a.png", {1: bad})
    assert (tmp_path / "a.png").exists()


def test_examples_are_the_first_points_of_the_data() -> None:
    class Data:
        splits = ("all",)

        def open(self, split: str) -> list[dict[str, Any]]:
            assert split == "all"
            return [{"x": point, "label": 0} for point in some_points(5)]

    np.testing.assert_array_equal(examples(Data()), some_points(5))
    assert examples(Unavailable(x_shape=(2,))) is None


@pytest.mark.parametrize("name", ["a.jpg", "folder"])
def test_an_ending_that_we_do_not_write_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"must end in .png, for a scatter of the points, or in .npz"):
        check_out(tmp_path / name)


def test_rows_stand_side_by_side_and_their_blocks_below_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(monkeypatch)
    rows = [Row(f"row {i}", (some_points(i + 1), some_points(i + 20))) for i in range(11)]
    draw_rows(tmp_path / "a.png", rows, ("upper", "lower"), "foot")
    assert drawn.titles == [f"row {i}" for i in range(11)]
    assert [len(points) for points in drawn.points] == [n for i in range(11) for n in (i + 1, i + 20)]
    assert len(set(drawn.limits)) == 1
    with Image.open(tmp_path / "a.png") as wide:
        draw_rows(tmp_path / "b.png", rows[:9], ("upper", "lower"), "foot")
        with Image.open(tmp_path / "b.png") as half:
            assert half.width == wide.width  # Nine beside each other, the others below.
            assert half.height < 0.6 * wide.height


@pytest.mark.parametrize("dimensions", [1, 3])
def test_of_more_coordinates_the_first_two_are_drawn_and_the_only_one_as_a_histogram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimensions: int
) -> None:
    drawn, bars, feet = Drawn(monkeypatch), [], []
    monkeypatch.setattr(Axes, "hist", lambda _, points, **__: bars.append(points))
    monkeypatch.setattr("shortcut_models.views.points.write_foot", lambda _, text: feet.append(text))
    cloud = np.random.default_rng(0).uniform(-1, 1, (8, dimensions)).astype(np.float32)
    cloud[:, 2:] *= 100  # What is not drawn does not set the scale.
    write(tmp_path / "a.png", cloud, LABELS)
    draw_budgets(tmp_path / "b.png", {1: cloud, 4: cloud}, (), cloud, "foot")
    draw_methods(tmp_path / "c.png", {"flow": {1: cloud, 4: cloud}, "jump": {4: cloud}})
    draw_rows(tmp_path / "d.png", [Row("row", (cloud, cloud))], ("upper", "lower"), "foot")
    said = "the first two of 3 coordinates"
    if dimensions == 1:
        np.testing.assert_array_equal(bars[0], cloud[::2, 0])
        assert (len(bars), feet) == (2 + 3 + 4 + 2, ["", "foot", "", "foot"])
    else:
        np.testing.assert_array_equal(drawn.points[0], cloud[::2, :2])
        assert feet == [said, f"{said}; foot", said, f"{said}; foot"]
    assert all(0.5 < limits[1] < 2 for limits in drawn.limits)
    write(tmp_path / "a.npz", cloud, LABELS)
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["points"], cloud)


def test_a_histogram_is_drawn_of_what_is_finite(tmp_path: Path) -> None:
    draw_budgets(tmp_path / "a.png", {1: np.array([[np.nan], [np.inf], [0.5]], np.float32)}, (), None)
    assert (tmp_path / "a.png").exists()


def test_many_budgets_are_wrapped(tmp_path: Path) -> None:
    sizes = {}
    for count in (6, 7, 8):
        draw_budgets(tmp_path / "a.png", {n: some_points() for n in range(1, count + 1)}, (), None, "foot")
        with Image.open(tmp_path / "a.png") as picture:
            sizes[count] = picture.size
    assert sizes[7] == sizes[8]
    assert sizes[7][1] > 1.9 * sizes[6][1]
    assert sizes[7][0] < 0.7 * sizes[6][0]
