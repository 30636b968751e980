"""Images: grids and rows of them, arrays, folders of PNGs."""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from shortcut_models.data.pixels import to_uint8
from shortcut_models.errors import InputError
from shortcut_models.files import whole_file
from shortcut_models.outputs import check_new
from shortcut_models.views.canvas import FOOT, Row, new_figure, save, save_arrays, write_foot

NOUN = "images"
SINGLE = True
READABLE = 8
LEAST_SIDE = 48
"""Pixels; smaller images are enlarged by a whole factor, so that people can see them."""
MOST_CLASSES = 16
"""Columns of a picture of budgets; of more classes, so many are shown, evenly chosen."""

Images = UInt8[np.ndarray, "count height width channels"]


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise InputError unless samples have a height, a width and channels."""
    if len(shape) != 3:
        raise InputError(
            f"samples of shape {shape} are no images (height, width, channels): let `view` of the data set be points "
            "for shapes of one axis, or arrays for any."
        )


def to_samples(decoded: Float[np.ndarray, "count ..."]) -> Images:
    """Bytes from images in [-1, 1], rounded to nearest and clipped; raises InputError for NaN and for another shape."""
    check_shape(decoded.shape[1:])
    return to_uint8(decoded)


def check_out(out: Path) -> None:
    """Raise InputError unless `out` is free, and a .png, an .npz or a folder."""
    check_new(out)
    if out.suffix and out.suffix.lower() not in (".png", ".npz"):
        raise InputError(f"--out {out} must end in .png or .npz, or be a folder, whose name has no ending.")


def write(out: Path, samples: Images, labels: Int[np.ndarray, " count"]) -> None:
    """Write a grid (.png), arrays `images` and `labels` (.npz), or a folder of PNGs named by index and label."""
    check_out(out)
    if out.suffix.lower() == ".png":
        classes = len(np.unique(labels))
        draw_grid(out, samples, columns=min(len(samples), classes if 4 <= classes <= 16 else 8))
    elif out.suffix.lower() == ".npz":
        save_arrays(out, images=samples, labels=labels)
    else:
        _write_folder(out, samples, labels)


def examples(data: Any) -> None:
    """None: people know what the images look like, and the report has numbers of real ones."""
    del data


def draw_budgets(
    path: Path,
    samples: dict[int, UInt8[np.ndarray, "classes height width channels"]],
    names: Sequence[str] | None = (),
    examples: None = None,
    foot: str = "",
) -> None:
    """Write a labelled PNG: a row per step budget, a column per class, at most MOST_CLASSES of them.

    `names` are the classes' titles, their numbers if there are fewer names than classes; with None, the columns
    are no classes and have no titles.
    """
    del examples
    rows, count = len(samples), len(next(iter(samples.values())))
    shown = _evenly(count, MOST_CLASSES)
    titles = None if names is None else names if len(names) >= count else [str(number) for number in range(count)]
    figure = new_figure(0.62 * len(shown) + 1.1, 0.62 * rows + 0.7)
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for row, (steps, line) in enumerate(samples.items()):
        for column, image in enumerate(line[shown]):
            cell = axes[row, column]
            _show(cell, image)
            if row == 0 and titles is not None:
                cell.set_title(titles[shown[column]], fontsize=9)
            if column == 0:
                name = f"{steps} step" + "s" * (steps > 1)
                cell.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    if titles is not None:
        figure.suptitle("class", fontsize=9)
    write_foot(figure, foot)
    save(figure, path)


def draw_methods(path: Path, samples: dict[str, dict[int, UInt8[np.ndarray, "classes height width channels"]]]) -> None:
    """Write a labelled PNG of the same noise under every method and budget: a row each, a column for ten classes."""
    rows = [(name, steps, line) for name, budgets in samples.items() for steps, line in budgets.items()]
    shown = _evenly(len(rows[0][2]), 10)
    columns = len(shown)
    figure = new_figure(0.42 * columns + 2.4, 0.42 * len(rows) + 0.2, layout=None)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=2.3 / figure.get_figwidth(), right=0.99, bottom=0.005, top=0.995, hspace=0.06, wspace=0.06
    )
    for row, (name, steps, line) in enumerate(rows):
        for cell, image in zip(axes[row], line[shown], strict=True):
            _show(cell, image)
        text = f"{name}, {steps}" if row == 0 or rows[row - 1][0] != name else str(steps)
        axes[row, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
    save(figure, path)


def draw_rows(path: Path, rows: Sequence[Row], titles: Sequence[str], foot: str = "") -> None:
    """Write a labelled PNG: a row of images each, its blocks side by side, with notes below the images."""
    sizes = [len(block) for block in rows[0].blocks]
    height, width = rows[0].blocks[0].shape[1:3]
    cell = min(max(0.55, width / 160), 1.1)  # Inches; one of 256 pixels still shows them all in a column of a page.
    tall, gap, note = cell * height / width, 0.2, 0.16 * any(row.notes for row in rows)
    left, top = 0.15 + 0.075 * max(len(line) for row in rows for line in row.name.splitlines() or [""]), 0.35
    wide = max(left + cell * sum(sizes) + gap * (len(sizes) - 1) + 0.1, 0.2 + 0.055 * len(foot))
    high = top + (tall + note + 0.05) * len(rows) + 0.3
    figure = new_figure(wide, high, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, wide), ylim=(high, 0))
    axes.axis("off")
    starts = left + np.cumsum([0, *(size * cell + gap for size in sizes[:-1])])
    for start, size, title in zip(starts, sizes, titles, strict=True):
        axes.text(start + size * cell / 2, top / 2, title, ha="center", va="center", fontsize=9)
    for index, row in enumerate(rows):
        y = top + (tall + note + 0.05) * index
        axes.text(left - 0.08, y + tall / 2, row.name, ha="right", va="center", fontsize=9)
        places = [start + cell * i for start, size in zip(starts, sizes, strict=True) for i in range(size)]
        for x, image in zip(places, np.concatenate(row.blocks), strict=True):
            _place(axes, image, (x + 0.01, x + cell - 0.01, y + tall - 0.01, y + 0.01))
        for x, text in zip(places, row.notes, strict=False):
            axes.text(x + cell / 2, y + tall + 0.02, text, ha="center", va="top", fontsize=7)
    axes.text(0.1, high - 0.08, foot, va="bottom", **FOOT)
    save(figure, path)


def draw_grid(path: Path, images: Images, columns: int) -> None:
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
    return Image.fromarray(_visible(pixels))


def _visible(image: UInt8[np.ndarray, "height width channels"]) -> np.ndarray:
    """What a screen can show: of channels that are neither grey nor colours, with or without opacity, their mean."""
    if image.shape[-1] in (3, 4):
        return image
    return image.mean(axis=-1).round().astype(np.uint8)


def _write_folder(out: Path, samples: Images, labels: Int[np.ndarray, " count"]) -> None:
    aside = out.with_name(f".aside-{secrets.token_hex(6)}")  # Short, so that every name for `out` works.
    aside.mkdir(parents=True)
    try:
        digits = max(5, len(str(len(samples) - 1)))
        for i, (image, label) in enumerate(zip(samples, labels, strict=True)):
            to_image(image).save(aside / f"{i:0{digits}d}-{label}.png")
        if out.exists():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _show(cell: Any, image: UInt8[np.ndarray, "height width channels"]) -> None:
    cell.imshow(_visible(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    cell.set(xticks=[], yticks=[])


def _place(axes: Any, image: UInt8[np.ndarray, "height width channels"], where: tuple[float, ...]) -> None:
    """Draw an image at (left, right, bottom, top)."""
    shown = _visible(image)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=where, aspect="auto")


def _evenly(count: int, most: int) -> Int[np.ndarray, " shown"]:
    """At most so many indices below `count`, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)
