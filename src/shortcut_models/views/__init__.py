"""How samples are shown and written: a view a file, chosen by the `view` of the data set."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from jaxtyping import Float, Int

from shortcut_models.errors import InputError
from shortcut_models.views.canvas import Row

if TYPE_CHECKING:
    from shortcut_models.data.base import Data

VIEWS = {
    "images": "shortcut_models.views.images",
    "points": "shortcut_models.views.points",
    "arrays": "shortcut_models.views.arrays",
}
"""The module of each view; imported when it is needed. A new one is a file and a line here."""


class View(Protocol):
    """The seam: a module with these functions. Samples are arrays as they are written, one a row."""

    NOUN: str
    """What samples are called, in the plural."""
    SINGLE: bool
    """Whether one sample says something by itself, as an image does; a point does so only among others."""
    READABLE: int
    """How many samples a row of a picture shows, or points a panel."""

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless it shows samples of this shape, that of one as the codec decodes it."""
        ...

    def to_samples(self, decoded: Float[np.ndarray, "count ..."]) -> np.ndarray:
        """Samples as they are written, from what the codec decodes: images in [-1, 1], or numbers as they are."""
        ...

    def check_out(self, out: Path) -> None:
        """Raise InputError unless `out` does not exist yet and has an ending that can be written."""
        ...

    def write(self, out: Path, samples: np.ndarray, labels: Int[np.ndarray, " count"]) -> None:
        """Write a picture (.png) or arrays (.npz), whole or not at all."""
        ...

    def examples(self, data: "Data") -> np.ndarray | None:
        """Samples of the data set, to be drawn beside; None where the view draws none."""
        ...

    def draw_budgets(
        self,
        path: Path,
        samples: dict[int, np.ndarray],
        names: Sequence[str] | None = (),
        examples: np.ndarray | None = None,
        foot: str = "",
    ) -> None:
        """Draw the samples of several step budgets, from the same noise.

        `names` are the classes' titles, () for their numbers, None if the samples are not of one class each;
        `foot` stands below all.
        """
        ...

    def draw_methods(self, path: Path, samples: dict[str, dict[int, np.ndarray]]) -> None:
        """Draw the samples of several methods at several step budgets, from the same noise."""
        ...

    def draw_rows(self, path: Path, rows: Sequence[Row], titles: Sequence[str], foot: str = "") -> None:
        """Draw rows of samples, with blocks of the same sizes; `titles` stand above the blocks, `foot` below all."""
        ...


def get_view(name: str) -> View:
    """The view of that name; raises InputError, listing the names, for an unknown one."""
    if name not in VIEWS:
        raise InputError(f"view {name!r} of the data set is unknown: the names are {', '.join(VIEWS)}.")
    return cast(Any, import_module(VIEWS[name]))
