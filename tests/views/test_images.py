"""Images are written as they are, and pictures show the pixels that they are given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from shortcut_models import InputError
from shortcut_models.views.canvas import Row
from shortcut_models.views.images import (
    MOST_CLASSES,
    check_out,
    draw_budgets,
    draw_grid,
    draw_methods,
    draw_rows,
    to_image,
    to_samples,
    write,
)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def some_images(count: int, side: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (count, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize(("side", "channels", "factor"), [(8, 1, 6), (64, 3, 1), (30, 1, 2)])
def test_a_grid_holds_every_image_in_reading_order(tmp_path: Path, side: int, channels: int, factor: int) -> None:
    images = some_images(5, side, channels)
    draw_grid(tmp_path / "grid.png", images, columns=3)
    found = read(tmp_path / "grid.png")
    cell = factor * side + 2
    assert found.shape == (2 * cell, 3 * cell, *([3] if channels == 3 else []))
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        inside = found[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell][1:-1, 1:-1]
        expected = image.squeeze() if channels == 1 else image
        np.testing.assert_array_equal(inside[::factor, ::factor], expected)
        np.testing.assert_array_equal(inside[factor - 1 :: factor, factor - 1 :: factor], expected)
    # The place of the sixth is blank, and so is the border.
    assert np.unique(found[cell:, 2 * cell :]).tolist() == [127]
    assert np.unique(found[0]).tolist() == [127]


def test_a_grey_image_has_one_channel_and_a_colour_image_three() -> None:
    assert to_image(some_images(1, 8, 1)[0]).mode == "L"
    assert to_image(some_images(1, 8, 3)[0]).mode == "RGB"


def test_budgets_get_a_row_each_and_classes_a_column(tmp_path: Path) -> None:
    white, black = (np.full((4, 8, 8, 1), value, np.uint8) for value in (255, 0))
    sizes = {}
    for rows in (2, 3):
        path = tmp_path / f"{rows}.png"
        draw_budgets(path, {1: black, 4: white, 128: black} if rows == 3 else {1: black, 4: white})
        grey = read(path)[..., :3].mean(axis=-1)
        sizes[rows] = grey.shape
        # A line down through the middle of a column's cells counts the dark rows; black cells are wide.
        dark = grey < 10
        runs = [np.diff(np.flatnonzero(np.diff(np.pad(line, 1).astype(int))))[::2] for line in dark.T]
        cells = [(run > 30).sum() for run in runs]
        assert max(cells) == (2 if rows == 3 else 1)
        across = np.flatnonzero(np.diff(np.pad(np.array(cells) == max(cells), 1).astype(int)))
        assert len(across) == 2 * 4  # Four columns.
    assert sizes[3][0] > sizes[2][0]
    assert sizes[3][1] == sizes[2][1]


def test_a_colour_image_is_drawn_too(tmp_path: Path) -> None:
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    draw_budgets(tmp_path / "red.png", {1: red})
    found = read(tmp_path / "red.png")[..., :3].reshape(-1, 3)
    assert (found == [255, 0, 0]).all(axis=1).sum() > 1000


def test_of_many_classes_some_are_drawn_under_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles, shades = [], []
    monkeypatch.setattr(Axes, "set_title", lambda _, title, **__: titles.append(title))
    monkeypatch.setattr(Axes, "imshow", lambda _, image, **__: shades.append(int(image[0, 0, 0])))
    names = [f"class {number}" for number in range(62)]
    images = np.broadcast_to(np.arange(62, dtype=np.uint8)[:, None, None, None], (62, 2, 2, 3))
    draw_budgets(tmp_path / "a.png", {1: images, 4: images}, names)
    assert len(titles) == MOST_CLASSES
    assert (titles[0], titles[-1]) == ("class 0", "class 61")
    assert [names[shade] for shade in shades] == titles * 2
    assert set(np.diff(shades[:MOST_CLASSES])) == {4, 5}
    # Fewer classes are all drawn, and without names go by their numbers.
    titles.clear()
    draw_budgets(tmp_path / "b.png", {1: images[:5]}, names[:4])
    assert titles == ["0", "1", "2", "3", "4"]
    # Samples that are not of one class each have no titles.
    titles.clear()
    draw_budgets(tmp_path / "c.png", {1: images[:5]}, None)
    assert not titles


def test_methods_get_a_row_for_each_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shades, names = [], []
    monkeypatch.setattr(Axes, "imshow", lambda _, image, **__: shades.append(int(image[0, 0, 0])))
    monkeypatch.setattr(Axes, "set_ylabel", lambda _, text, **__: names.append(text))
    line = np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None, None], (3, 2, 2, 3))
    draw_methods(tmp_path / "a.png", {"flow": {1: line, 4: line + 10}, "jump": {1: line + 20, 4: line + 30}})
    assert names == ["flow, 1", "4", "jump, 1", "4"]
    assert shades == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_bytes_are_the_nearest_and_clipped() -> None:
    decoded = np.array([-2, -1, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.5, 1, 2]).reshape(1, 1, 7, 1)
    found = to_samples(decoded)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 0, 0, 1, 191, 255, 255]


def noisy(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.npz", "folder", "deep/er/a.png", "deep/er/a.npz", "deep/er/folder"])
def test_what_is_written_is_all_there_and_nothing_else(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    check_out(out)
    write(out, noisy(3), np.arange(3, dtype=np.int32))
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    if out.suffix == ".npz":
        with np.load(out) as found:
            np.testing.assert_array_equal(found["images"], noisy(3))
            assert found["labels"].tolist() == [0, 1, 2]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    out = tmp_path / "images"
    out.mkdir()
    write(out, noisy(2), np.array([7, 8], np.int32))
    assert sorted(path.name for path in out.iterdir()) == ["00000-7.png", "00001-8.png"]
    for i, path in enumerate(sorted(out.iterdir())):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), noisy(2)[i, :, :, 0])


@pytest.mark.parametrize("name", ["a.png", "a.npz", "folder"])
def test_what_exists_is_left_alone(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    if out.suffix:
        out.write_bytes(b"precious")
    else:
        out.mkdir()
        (out / "precious").write_bytes(b"precious")
    for refuse in (check_out, lambda path: write(path, noisy(1), np.zeros(1, np.int32))):
        with pytest.raises(InputError, match="exists already: choose another --out, or remove it first"):
            refuse(out)
    assert (out if out.suffix else out / "precious").read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_ending_that_we_do_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in .png or .npz, or be a folder"):
        check_out(tmp_path / "a.jpg")


class Placed:
    """What `draw_rows` asks of matplotlib: images by where they stand, and words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: list[tuple[tuple[float, ...], np.ndarray]] = []
        self.words: dict[str, tuple[float, float]] = {}
        imshow, text = Axes.imshow, Axes.text

        def show(axes: Axes, image: np.ndarray, **given: Any) -> Any:
            self.images.append((given["extent"], image))
            return imshow(axes, image, **given)

        def write_words(axes: Axes, x: float, y: float, words: str, **given: Any) -> Any:
            self.words[words] = (x, y)
            return text(axes, x, y, words, **given)

        monkeypatch.setattr(Axes, "imshow", show)
        monkeypatch.setattr(Axes, "text", write_words)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (256, 3)])
def test_rows_have_their_blocks_side_by_side_and_notes_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, channels: int
) -> None:
    placed = Placed(monkeypatch)
    every = some_images(10, side, channels)
    rows = [
        Row("upper", (every[:2], every[2:5]), ("", "b", "c", "d", "e")),
        Row("lower", (every[5:7], every[7:]), ("f", "g", "h", "i", "j")),
    ]
    draw_rows(tmp_path / "rows.png", rows, ("two", "three"), "how it was made")
    assert len(placed.images) == 10
    for given, (_, image) in zip(every, placed.images, strict=True):
        np.testing.assert_array_equal(given.squeeze() if channels == 1 else given, image)
    left, right, bottom, top = np.array([where for where, _ in placed.images]).T
    np.testing.assert_allclose(right - left, bottom - top)
    for first in (0, 5):
        assert (left[first + 1 : first + 5] > right[first : first + 4]).all()
        gaps = left[first + 1 : first + 5] - right[first : first + 4]
        assert gaps.argmax() == 1  # Between the blocks.
    np.testing.assert_allclose(left[:5], left[5:])
    assert (top[5:] > bottom[:5]).all()
    for i, letter in enumerate("bcdefghij", 1):
        x, y = placed.words[letter]
        assert left[i] < x < right[i]
        assert bottom[i] < y < (top[5] if i < 5 else np.inf)
    assert left[0] < placed.words["two"][0] < right[1] < left[2] < placed.words["three"][0] < right[4]
    assert placed.words["upper"][0] < left[0]
    assert top[0] < placed.words["upper"][1] < bottom[0] < top[5] < placed.words["lower"][1] < bottom[5]
    assert placed.words["how it was made"][1] > placed.words["j"][1]


def test_a_long_foot_makes_a_narrow_picture_wider(tmp_path: Path) -> None:
    for name, foot in (("short", "a"), ("long", "a" * 99)):
        draw_rows(tmp_path / f"{name}.png", [Row("", (some_images(1, 8, 1),))], ("",), foot)
    short, long = (read(tmp_path / f"{name}.png").shape for name in ("short", "long"))
    assert short[0] == long[0]
    assert long[1] > 700 > short[1]
