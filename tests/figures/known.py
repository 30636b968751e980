"""A network and data whose every figure is known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.base import Data
from shortcut_models.figures import Given
from shortcut_models.model import Model
from shortcut_models.networks import Network
from shortcut_models.objectives import Objective
from shortcut_models.objectives.shortcut import Shortcut


class Asked(NamedTuple):
    """What a network is asked, all float32, with axes of length 1 where x has more."""

    x: jax.Array
    t: jax.Array
    d: jax.Array
    label: jax.Array


@dataclass(frozen=True)
class Known(Network):
    """A velocity in closed form, of x, t, d and the label."""

    shape: tuple[int, ...] = (2,)
    num_classes: int = 3
    answer: Callable[["Asked"], jax.Array] = lambda at: 0 * at.x

    def init(self, key: jax.Array) -> dict[str, Any]:
        del key
        return {}

    def apply(self, params: Any, x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
        del params
        t, d, label = (part.reshape(-1, *(1,) * (x.ndim - 1)) for part in (t, d, label.astype(jnp.float32)))
        return self.answer(Asked(x, t, d, label))


@dataclass(frozen=True, kw_only=True)
class Few(Data):
    """Few examples, of which the label is the number modulo 3; held-out ones are others."""

    shape: tuple[int, ...] = (2,)
    num_classes: int = 3
    view: Any = "points"
    count: int = 12
    held: bool = True

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "test") if self.held else ("train",)

    def open(self, split: str = "train") -> ArraySource:
        self.check_split(split)
        x = np.random.default_rng(len(split)).uniform(-1, 1, (self.count, *self.shape)).astype(np.float32)
        return ArraySource({"x": x, "label": np.arange(self.count, dtype=np.int32) % 3})

    def identity(self) -> str:
        return f"few-{self}"


def given_of(
    answer: Callable[[Asked], jax.Array] = lambda at: 0 * at.x,
    data: Data | None = None,
    objective: Objective | None = None,
    **wishes: Any,
) -> Given:
    """What figures are drawn from, of a network with that velocity."""
    data = data or Few()
    network = Known(shape=data.shape, answer=answer)
    return Given(model=Model(network, {}, objective or Shortcut(), data, step=7, weights="ema"), **wishes)


IMAGES = Few(shape=(4, 4, 1), view="images")
POINTS = Few()


class Rows:
    """Stands for a view's `draw_rows`, and keeps what it was given."""

    def __init__(self, monkeypatch: Any, view: Any) -> None:
        self.rows: list[Any] = []
        self.titles: list[str] = []
        self.foot = ""
        monkeypatch.setattr(view, "draw_rows", self)

    def __call__(self, path: Path, rows: Any, titles: Any, foot: str = "") -> None:
        del path
        self.rows, self.titles, self.foot = list(rows), list(titles), foot
