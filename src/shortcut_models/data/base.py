"""The seam of data: a choice of data set, and the source of examples that it opens."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Int

from shortcut_models import catalogue
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

View = str
"""Name of one of the views, the modules of `views`."""
Batch = dict[str, np.ndarray]


class Source(Protocol):
    """Random access to examples, each a dict of arrays and numbers.

    Exactly one of
      "image"              uint8 (H, W, C), scaled to [-1, 1] on the device
      "x"                  float32, any shape, already in the network's range
      "mean", "deviation"  float (h, w, c), unscaled moments of a latent
    and "label" (int), and, for data that come in pairs, "noise" (float32, shaped like x).

    A source may also have
      `batch(indices)`     the same dict with a leading axis, quicker than one by one: see `take`
      `labels()`           the label of every example, without reading the examples
      `remarks()`          what a person should know of the examples by now, such as those left out: see `remarks`
      `mirror`             a source of the same examples flipped left to right: training then draws
                           each example as it is or mirrored, with equal chances
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


def take(source: Source, indices: Int[np.ndarray, " count"]) -> Batch:
    """The examples of these indices, stacked; "label" as int32."""
    if hasattr(source, "batch"):
        batch = dict(source.batch(indices))
    else:
        examples = [source[int(index)] for index in indices]
        batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    return batch | {"label": np.asarray(batch["label"], np.int32)}


def remarks(source: Source) -> list[str]:
    """What a person should know of the examples by now, a line each: what is odd, left out, or could not be read."""
    return source.remarks() if hasattr(source, "remarks") else []


@dataclass(frozen=True, kw_only=True)
class Data(ABC):
    """A choice of data: a frozen dataclass whose fields say which; opened when it is needed.

    A new data set is a file with a class derived from this one and a line in the catalogue.
    """

    latents: ClassVar[str] = ""
    """Whose tool encoded them, where nothing in the files says so and `--latents` has to."""

    @classmethod
    def recognise(cls, place: str) -> Sequence["Data"]:  # noqa: ARG003
        """The data of this kind that lie at a path; none for data that lie nowhere."""
        return ()

    @abstractmethod
    def open(self, split: str = "train") -> Source:
        """Open a split; raises InputError if the data are missing, damaged or have no such split."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that `open` takes; the first is the one to train on, "train" but for odd data sets."""
        return ("train",)

    @property
    def held_out(self) -> str | None:
        """The split of examples that training never sees; None if there is none."""
        return next((name for name in ("validation", "test") if name in self.splits), None)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the network's input x: that of a stored item, as the codec maps it."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); 1 for data without labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes, in order; () if nothing says so, or there are no labels."""
        return ()

    @property
    def unlabelled(self) -> bool:
        """Whether there is nothing that labels could tell."""
        return self.num_classes == 1 and not self.class_names

    @property
    def unnamed(self) -> bool:
        """Whether it is still to be said where the data lie, as in a preset for anybody's images."""
        return getattr(self, "path", None) == ""

    @property
    def is_here(self) -> bool:
        """Whether there is something where they are said to lie; data that lie nowhere in particular always are."""
        path = getattr(self, "path", "")
        return not path or Path(path).exists()

    @property
    def paired(self) -> bool:
        """Whether each example brings the noise that it belongs to."""
        return False

    @property
    def codec(self) -> "Codec":
        """From stored items to the network's x and from samples to images; pixels by default."""
        from shortcut_models.codecs.pixels import Pixels  # It needs JAX; choosing data does not.

        return Pixels()

    @property
    def view(self) -> View:
        """How its samples are shown and written: images, points or arrays by their shape; of data in files, images."""
        if hasattr(self, "path"):  # The shape may have to be read, and samples are drawn without the files too.
            return "images"
        return {1: "points", 3: "images"}.get(len(self.shape), "arrays")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `evaluate` and `compare` take by default, without the number of samples."""
        return ()

    def recorded(self) -> "Data":
        """The same data as a run notes them: with the identity of the VAE that encodes them, if there is one."""
        return self

    def shows(self) -> "Data":
        """The data set whose examples its samples are to be compared with: itself, but for pairs."""
        return self

    @abstractmethod
    def identity(self) -> str:
        """A string that changes whenever the examples do: the key of cached statistics."""

    def check_split(self, split: str) -> None:
        """Raise InputError, listing the splits, unless `split` is one of them."""
        if split not in self.splits:
            raise InputError(f"split {split!r} is unknown: {describe(self)} has {', '.join(self.splits)}.")


def whole_path(path: str) -> str:
    """A path that means the same from every working directory; "" stays."""
    return os.path.abspath(Path(path).expanduser()) if path else ""  # noqa: PTH100


def check_first(first: int) -> None:
    """Raise InputError unless it is a number of examples, or 0 for all."""
    if first < 0:
        raise InputError(f"data.first is {first}, but must be a number of images, or 0 for all.")


def origin(data: Data) -> dict[str, Any]:
    """Which data they are, and how they are cropped and resized, ready for JSON."""
    chosen = {field.name: getattr(data, field.name) for field in fields(data)}
    settings = {name: value for name, value in chosen.items() if isinstance(value, str | int | float | None)}
    return {"path": None, **settings, "identity": data.identity()}


def describe(data: Data) -> str:
    """What a message calls these data: their path where they have one, else their name."""
    return str(getattr(data, "path", "") or catalogue.kind_of(catalogue.DATA, data))
