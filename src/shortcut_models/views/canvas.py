"""What all pictures are drawn on: a figure, its file, and colours that everybody can tell apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from shortcut_models.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of things without an order: Okabe & Ito's, "Color Universal Design" (2008), which differ in brightness too."""
FOOT: dict[str, Any] = {"fontsize": 7, "color": "0.35", "ha": "left"}
"""How the line below a picture looks, which says how its samples were drawn."""
MARKERS = "osD^vP*X"


class Row(NamedTuple):
    """A row of a picture of rows."""

    name: str
    """What stands to its left."""
    blocks: Sequence[np.ndarray]
    """Samples side by side, one or more blocks of them."""
    notes: Sequence[str] = ()
    """What stands below the samples, one note each, block after block; () for nothing."""


def ramp(count: int) -> list[str]:
    """Colours of things in an order, dark to bright: viridis without its end, which is too pale on white."""
    from matplotlib import colormaps  # Slow to import.
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.88 * index / max(count - 1, 1))) for index in range(count)]


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure  # Slow to import.

    return Figure(figsize=(width, height), dpi=150, layout=layout)


def write_foot(figure: "Figure", text: str) -> None:
    """Write the line below a picture, if there is one."""
    if text:
        figure.supxlabel(text, x=0.01, **FOOT)


def join_notes(*notes: str) -> str:
    """The parts of the line below a picture, but for empty ones."""
    return "; ".join(filter(None, notes))


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz, whole or not at all."""
    with whole_file(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as aside:
        figure.savefig(aside, format="png")
