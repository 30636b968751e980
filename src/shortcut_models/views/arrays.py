"""Arrays of any shape: written as they are, and drawn as sheets of grey, dark for low numbers."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8
from numpy.typing import ArrayLike

from shortcut_models.outputs import check_file
from shortcut_models.views import images
from shortcut_models.views.canvas import Row, join_notes, save_arrays

NOUN = "samples"
SINGLE = True
READABLE = 8
LONGEST = 8
"""An array that is longer than so many times its width is drawn row below row, as a square."""

Arrays = Float32[np.ndarray, "..."]
Sheets = UInt8[np.ndarray, "count height width 1"]
Scale = tuple[float, float]


def check_shape(shape: tuple[int, ...]) -> None:
    """Nothing: every shape can be shown."""
    del shape


def to_samples(decoded: ArrayLike) -> Arrays:
    """The numbers as they are, float32."""
    return np.asarray(decoded, np.float32)


def check_out(out: Path) -> None:
    """Raise InputError unless `out` is free, and a .png or an .npz."""
    check_file(out, "a picture of the numbers in grey")


def write(out: Path, samples: Arrays, labels: Int[np.ndarray, " count"]) -> None:
    """Write sheets of grey, on one scale (.png), or arrays `samples` and `labels` (.npz)."""
    check_out(out)
    if out.suffix.lower() == ".npz":
        save_arrays(out, samples=samples, labels=labels)
    else:
        images.write(out, _sheets(samples, _scale([samples])), labels)


def examples(data: Any) -> None:
    """None: a few of them would not say what all look like."""
    del data


def draw_budgets(
    path: Path,
    samples: dict[int, Arrays],
    names: Sequence[str] | None = (),
    examples: None = None,
    foot: str = "",
) -> None:
    """Write a PNG as that of images, of sheets of grey; the scale is said at its foot."""
    del examples
    scale = _scale(samples.values())
    sheets = {steps: _sheets(arrays, scale) for steps, arrays in samples.items()}
    images.draw_budgets(path, sheets, names, None, join_notes(foot, _said(scale)))


def draw_methods(path: Path, samples: dict[str, dict[int, Arrays]]) -> None:
    """Write a PNG as that of images, of sheets of grey."""
    # Every method has a scale of its own, so that one that fails does not make the others grey.
    scales = {name: _scale(budgets.values()) for name, budgets in samples.items()}
    images.draw_methods(
        path,
        {
            name: {steps: _sheets(arrays, scales[name]) for steps, arrays in budgets.items()}
            for name, budgets in samples.items()
        },
    )


def draw_rows(path: Path, rows: Sequence[Row], titles: Sequence[str], foot: str = "") -> None:
    """Write a PNG as that of images, of sheets of grey; the scale is said at its foot."""
    scale = _scale(np.asarray(block) for row in rows for block in row.blocks)
    drawn = [row._replace(blocks=[_sheets(np.asarray(block), scale) for block in row.blocks]) for row in rows]
    images.draw_rows(path, drawn, titles, join_notes(foot, _said(scale)))


def _sheets(arrays: Arrays, scale: Scale) -> Sheets:
    """Each array as one sheet: its first axis downwards, all others to the right."""
    count, shape = len(arrays), arrays.shape[1:]
    size = math.prod(shape)
    height, width = (shape[0], size // shape[0]) if shape else (1, 1)
    if max(height, width) > LONGEST * min(height, width):
        height = width = math.isqrt(size - 1) + 1
    low, high = scale
    filled = np.zeros((count, height * width), np.float32)  # What a square has too many stays black.
    known = np.clip(np.nan_to_num(arrays.reshape(count, size), nan=low, posinf=high, neginf=low), low, high)
    filled[:, :size] = (known - low) / (high - low)
    return (filled * 255).round().astype(np.uint8).reshape(count, height, width, 1)


def _scale(sets: Iterable[Arrays]) -> Scale:
    """What is black and what is white: the range of the numbers but for the outermost."""
    numbers = np.concatenate([arrays.ravel() for arrays in sets])
    numbers = numbers[np.isfinite(numbers)]
    low, high = (float(end) for end in np.quantile(numbers, (0.005, 0.995))) if numbers.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + max(abs(low), 1.0))


def _said(scale: Scale) -> str:
    return f"black {scale[0]:.3g}, white {scale[1]:.3g}"
