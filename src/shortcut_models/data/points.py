"""Points in the plane on four shapes, one a class: moons, a ring, a spiral and a grid of blobs. No download, no end.

Point i is a pure function of i and of the noise: its random draws are a hash of i. Large enough to
show whether a method follows a flow into several modes and along curves, and learned in seconds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shortcut_models.data.base import Batch, Data, View
from shortcut_models.errors import check_at_least, check_values

SHAPES = ("moons", "ring", "spiral", "blobs")
LENGTH = len(SHAPES) * 2**28
"""Points in each split: about a billion, which fits the 32 bits of a shuffled index."""

_KEY = 0x706F696E7473  # "points"; another key is another data set.
_DRAWS = 4  # Random numbers a point: two for its place on the shape, two for the noise.
_STEP = 0x9E3779B97F4A7C15  # Of splitmix64: 2^64 over the golden ratio, made odd.


@dataclass(frozen=True, kw_only=True)
class Points(Data):
    """Points x, float32 (2,), within about [-1.5, 1.5]; index i has label i % 4, the place of its shape in `SHAPES`.

    The test split consists of other draws.
    """

    noise: float = 0.05
    """Standard deviation of what is added to a point on its shape, in both directions."""

    def __post_init__(self) -> None:
        check_values("data.", self)
        check_at_least("data.", self, {"noise": 0})

    def open(self, split: str = "train") -> "PointSource":
        """Open a split; raises InputError for one that there is not."""
        self.check_split(split)
        return PointSource(LENGTH * self.splits.index(split), self.noise)

    @property
    def splits(self) -> tuple[str, ...]:
        """Draws of their own for training and for test."""
        return ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """The two coordinates."""
        return (2,)

    @property
    def num_classes(self) -> int:
        """One class a shape."""
        return len(SHAPES)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The shapes."""
        return SHAPES

    @property
    def view(self) -> View:
        """A scatter."""
        return "points"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Distances between two sets of points."""
        return ("energy", "sliced-wasserstein")

    def identity(self) -> str:
        """All that decides a point is the noise."""
        return f"points-1-noise{self.noise!r}"


class PointSource:
    """Draws number `first`, `first` + 1, ..., LENGTH of them, made as they are asked for."""

    def __init__(self, first: int, noise: float) -> None:
        self._first, self._noise = first, noise

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.batch(np.array([index]))
        return {"x": batch["x"][0], "label": int(batch["label"][0])}

    def batch(self, indices: Int[np.ndarray, " count"]) -> Batch:
        """The points of these indices, one after the other."""
        outside = indices[(indices < 0) | (indices >= LENGTH)]
        if outside.size:  # A negative index would reach into the other split.
            raise IndexError(f"index {outside[0]} is outside 0 to {LENGTH - 1}.")
        label = (indices % len(SHAPES)).astype(np.int32)
        u = uniform(self._first + indices)
        shapes = np.stack([_moons(*u[:2]), _ring(u[0]), _spiral(u[0]), _blobs(*u[:2])])
        x = shapes[label, :, np.arange(len(indices))] + self._noise * normal(*u[2:])
        return {"x": x.astype(np.float32), "label": label}


def uniform(numbers: Int[np.ndarray, " count"]) -> Float[np.ndarray, "4 count"]:
    """Four numbers in [0, 1) for each of `numbers`, which are at least 0: the outputs 4n + 1 to 4n + 4 of splitmix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """
    place = numbers.astype(np.uint64) * np.uint64(_DRAWS) + np.arange(1, _DRAWS + 1, dtype=np.uint64)[:, None]
    z = np.uint64(_KEY) + place * np.uint64(_STEP)  # Arithmetic of arrays wraps around, as it should.
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def normal(u: np.ndarray, v: np.ndarray) -> Float[np.ndarray, "count 2"]:
    """Two independent standard normals from two uniform numbers (Box and Muller, 1958)."""
    radius, angle = np.sqrt(-2 * np.log1p(-u)), 2 * np.pi * v
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def _moons(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two half circles, each with an end inside the other."""
    side, angle = np.where(v < 0.5, 1, -1), np.pi * u
    return np.stack([side * (np.cos(angle) - 0.5), side * (np.sin(angle) - 0.25)]).astype(float)


def _ring(u: np.ndarray) -> np.ndarray:
    return 1.2 * np.stack([np.cos(2 * np.pi * u), np.sin(2 * np.pi * u)])


def _spiral(u: np.ndarray) -> np.ndarray:
    """One and three quarter turns of Archimedes' spiral, even along its length but near the middle."""
    turn = np.sqrt(u)
    return 1.3 * turn * np.stack([np.cos(3.5 * np.pi * turn), np.sin(3.5 * np.pi * turn)])


def _blobs(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The nine places of a grid."""
    return np.stack([np.floor(3 * u) - 1, np.floor(3 * v) - 1])
