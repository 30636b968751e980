"""The seam of metrics: features of samples, sums over features, and a number out of two sets of sums.

Samples are streamed: a metric adds up what it needs of each chunk and forgets the rest, so that memory does
not grow with the number of samples, but for the metrics that say which features they need in full.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from shortcut_models.data.pixels import to_network, to_uint8
from shortcut_models.errors import InputError

Arrays = dict[str, np.ndarray]
Sums = dict[str, Any]
"""What a metric knows of the samples so far, as NumPy arrays and numbers, so that they can be stored."""

Labels = Literal["balanced", "random", "data", "none"]


@dataclass(frozen=True, kw_only=True)
class Features(ABC):
    """From samples to named arrays whose first axis counts the samples."""

    takes: ClassVar[Literal["bytes", "floats", "raw"]] = "bytes"
    """Images as uint8, as they are written to disk; as float32 in about [-1, 1]; or samples of any kind as they are."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What stands for these features in the name of a number."""

    @property
    def prepared_by(self) -> str | None:
        """The protocol that prepares images for these features, which statistics must share; None if there is none."""
        return None

    @abstractmethod
    def __call__(self, samples: np.ndarray) -> Arrays:
        """The features of samples with one leading axis, in float32."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless samples of this shape have such features."""
        del shape

    def ready(self, weights: Path | None, any_weights: bool) -> "Features":  # noqa: ARG002
        """These features with the network that they need, from a file of weights where the package has none."""
        return self

    def unseen(self, count: int) -> np.ndarray | None:  # noqa: ARG002
        """Which of the `count` examples of a training split these features never saw; None if none were."""
        return None


class Statistics(NamedTuple):
    """Means and covariances of real samples' features, as a file has them."""

    path: Path
    protocol: str
    count: int
    """Samples they were made of; 0 if the file does not say."""
    gaussians: dict[str, Sums]
    """By the features' array: {"mean", "covariance"} in float64."""
    about: dict[str, Any]
    """What else the file records."""


class Reference(NamedTuple):
    """The real samples that others are measured against."""

    what: str
    """Where they come from, for people."""
    count: int
    sums: Sums
    """What the metric itself added up over them."""


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """Numbers for a set of samples, by its name in the catalogue; see `metrics.measure` for how it is fed."""

    name: str
    features: Features

    is_distance: ClassVar[bool] = True
    """Whether less is better and its ratio to what real samples get means something."""
    needs_labels: ClassVar[bool] = False
    """Whether it compares samples with the labels that were asked for."""
    needs_reference: ClassVar[bool] = True
    """Whether it compares with real samples at all."""
    least: ClassVar[int] = 2
    """Fewer samples, or fewer real ones to compare with, give no number."""
    judges_training: ClassVar[bool] = False
    """Whether it asks how near samples are to the training images: those themselves are no measure of that."""

    keeps_real: ClassVar[bool] = True
    """Whether it needs those in full of the real samples too; else its sums are made over all of these."""

    rows: tuple[str, ...] = ()
    """The features that it needs in full: they are kept for it, and stand in its sums under these names."""
    labels: Labels = "balanced"
    """How its protocol chooses the labels of the samples."""

    def empty(self) -> Sums:
        """The sums over no sample."""
        return {}

    def add(self, sums: Sums, features: Arrays, labels: np.ndarray) -> Sums:  # noqa: ARG002
        """The sums with another chunk of samples; they are not changed in place."""
        return sums

    def from_statistics(self, statistics: Statistics) -> Sums | None:  # noqa: ARG002
        """What a file of reference statistics says of the real samples; None if it does not say enough."""
        return None

    def perfect(self, reference: Reference, count: int) -> tuple[float, int] | None:  # noqa: ARG002
        """What a perfect model would get with `count` samples, and below how many that is said too low, if known."""
        return None

    @abstractmethod
    def values(self, sums: Sums, reference: Reference, count: int) -> dict[str, float]:
        """Its numbers by their full names, which end in the number of samples."""


@dataclass(frozen=True, kw_only=True)
class ScalarMetric(Metric):
    """A metric of one number, which has its name."""

    @abstractmethod
    def value(self, sums: Sums, reference: Reference) -> float:
        """The number."""

    def values(self, sums: Sums, reference: Reference, count: int) -> dict[str, float]:
        """The number by its full name."""
        return {f"{self.name}-{count}": self.value(sums, reference)}


def to_bytes(samples: np.ndarray) -> np.ndarray:
    """Images as uint8: as they are, or from [-1, 1] as they are written to disk."""
    return samples if samples.dtype == np.uint8 else to_uint8(samples)


def to_floats(samples: np.ndarray) -> np.ndarray:
    """Images as float32: as they are, or from bytes to [-1, 1]."""
    return to_network(samples) if samples.dtype == np.uint8 else np.asarray(samples, np.float32)


def check_image(name: str, shape: tuple[int, ...], wanted: tuple[int, ...] | None = None) -> None:
    """Raise InputError unless `shape` is that of an image (height, width, channels), or the one wanted."""
    if len(shape) != 3 or (wanted is not None and shape != wanted):
        given = "x".join(map(str, shape))
        need = f"{'x'.join(map(str, wanted))} images" if wanted else "images (height, width, channels)"
        raise InputError(f"{name} measures {need}, but the samples are {given}: choose metrics made for them.")
