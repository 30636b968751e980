"""Image sources: `source[i]` is one example, `len(source)` their number."""

from pathlib import Path
from typing import Any, Protocol

from shortcut_models.data.digits import Digits
from shortcut_models.data.glyphs import Glyphs
from shortcut_models.data.pairs import Pairs, is_pairs, read_about
from shortcut_models.errors import InputError


class Source(Protocol):
    """The seam: random access to examples, each {"image": uint8 (H, W, C), "label": int}.

    An image may be float32 in the network's range instead, and have its own "noise" beside it.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels of every image."""
        ...

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


def origin(name: str) -> str:
    """The data set that a source shows: for a folder of pairs, the one that their network was trained on."""
    return str(read_about(Path(name))["dataset"]) if is_pairs(name) else name


SOURCES = {"digits": Digits, "glyphs": Glyphs}


def open_source(name: str) -> Source:
    """Open a source by its dataset name, or a folder of pairs; raises InputError, listing the names, for another."""
    if is_pairs(name):
        return Pairs(Path(name))
    if name not in SOURCES:
        raise InputError(f"dataset {name!r} cannot be read by this version: the datasets are {', '.join(SOURCES)}.")
    return SOURCES[name]()


def class_names(name: str) -> tuple[str, ...]:
    """What people call the classes of a dataset, in order; () if its source does not say."""
    return tuple(getattr(SOURCES.get(name), "class_names", ()))


__all__ = ["SOURCES", "Digits", "Glyphs", "Pairs", "Source", "class_names", "open_source", "origin"]
