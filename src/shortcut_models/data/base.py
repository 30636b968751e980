"""The seam of data: a choice of data set, and the source of examples that it opens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from shortcut_models.codecs.base import Codec

Split = Literal["train", "test"]
View = Literal["images", "points"]


class Source(Protocol):
    """Random access to examples, each a dict of arrays and numbers.

    Exactly one of
      "image"              uint8 (H, W, C), scaled to [-1, 1] on the device
      "x"                  float32, any shape, already in the network's range
      "mean", "deviation"  float (h, w, c), unscaled moments of a latent
    and "label" (int), and, for data that come in pairs, "noise" (float32, shaped like x).
    A source may also have `batch(indices)`: the same dict with a leading axis, quicker than one by one.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Data:
    """A choice of data: a frozen dataclass whose fields say which; opened when it is needed.

    A new data set is a file with a class derived from this one and a line in the catalogue.
    """

    view: ClassVar[View] = "images"
    """How its samples are shown and written: a key of `views`."""

    def open(self, split: Split = "train") -> Source:
        """Open a split; raises InputError if the data are missing, damaged or have no such split."""
        raise NotImplementedError

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that `open` takes; "test" holds examples that training never sees."""
        return ("train",)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the network's input x: that of a stored item, as the codec maps it."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); 1 for data without labels."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes, in order; () if nothing says so, or there are no labels."""
        return ()

    @property
    def paired(self) -> bool:
        """Whether each example brings the noise that it belongs to."""
        return False

    @property
    def codec(self) -> "Codec":
        """From stored items to the network's x and from samples to images; pixels by default."""
        from shortcut_models.codecs.pixels import Pixels

        return Pixels()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `evaluate` and `compare` take by default, without the number of samples."""
        return ()

    def shows(self) -> "Data":
        """The data set whose examples its samples are to be compared with: itself, but for pairs."""
        return self

    def identity(self) -> str:
        """A string that changes whenever the examples do: the key of cached statistics."""
        raise NotImplementedError
