"""The straight path that all objectives share, its times, the error and its weight, and batches in two parts.

Noise x0 sits at t=0, data x1 at t=1, x_t = (1-t) x0 + t x1, and the velocity is x1 - x0
(Lipman et al., "Flow Matching", arXiv 2210.02747; Liu et al., "Rectified Flow", arXiv 2209.03003).
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from shortcut_models.errors import InputError, check_above_zero, check_at_least, check_values

FARTHEST_MEAN = 12.0
"""The sigmoid of 17 is 1 in float32, and five standard deviations are nearly all."""


@dataclass(frozen=True)
class Times:
    """How the time t of a flow-matching example is drawn."""

    kind: Literal["grid", "uniform", "logit-normal"] = "logit-normal"
    """A multiple of 1/grid below 1 (the original), anything in [0, 1), or sigmoid(mean + std * normal)."""
    grid: int = 128
    """Number of times on the grid."""
    mean: float = 0.4
    """Of the normal; positive leans to the data end. MeanFlow's -0.4 with its reversed time is 0.4 here."""
    std: float = 1.0
    """Of the normal."""

    def __post_init__(self) -> None:
        check_values("objective.times.", self)
        check_at_least("objective.times.", self, {"grid": 1})
        if self.grid > 2**24:
            raise InputError(f"objective.times.grid is {self.grid}, but float32 tells {2**24} times apart: use fewer.")
        check_above_zero("objective.times.", self, "std")
        if abs(self.mean) > FARTHEST_MEAN:
            raise InputError(
                f"objective.times.mean is {self.mean:g}, but beyond {FARTHEST_MEAN:g} float32 takes nearly every time "
                "for 0 or 1: use one nearer to 0."
            )

    def draw(self, key: Array, count: int) -> Float[Array, " batch"]:
        """Times in [0, 1], one per example; the end by rounding alone."""
        if self.kind == "grid":
            return jax.random.randint(key, (count,), 0, self.grid) / self.grid
        if self.kind == "uniform":
            return jax.random.uniform(key, (count,))
        return jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (count,)))


def broadcast(per_example: Shaped[Array, " batch"], like: Float[Array, "batch ..."]) -> Shaped[Array, "batch ..."]:
    """Append axes of length 1, so that one number per example multiplies an array of examples."""
    return per_example.reshape(-1, *(1,) * (like.ndim - 1))


def draw_noise(key: Array, x1: Float[Array, "batch ..."], x0: Float[Array, "batch ..."] | None) -> Array:
    """The noise that belongs to each x1, or fresh standard normal noise where the data bring none."""
    return jax.random.normal(key, x1.shape) if x0 is None else x0


def interpolate(
    x0: Float[Array, "batch ..."], x1: Float[Array, "batch ..."], t: Float[Array, " batch"], noise_floor: float = 0.0
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch ..."]]:
    """x_t and its velocity on the path from noise x0 to data x1; `noise_floor` of x0 is left at t=1.

    >>> x0, x1 = jnp.zeros((1, 2)), jnp.full((1, 2), 4.0)
    >>> x_t, velocity = interpolate(x0, x1, jnp.array([0.25]))
    >>> x_t.tolist(), velocity.tolist()
    ([[1.0, 1.0]], [[4.0, 4.0]])
    """
    keep = 1 - noise_floor
    time = broadcast(t, x1)
    return (1 - keep * time) * x0 + time * x1, x1 - keep * x0


def clip_to(bound: float | None, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Clip to [-bound, bound]; None is no bound."""
    return x if bound is None else jnp.clip(x, -bound, bound)


def squared_error(a: Float[Array, "batch ..."], b: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """Mean squared difference of each example.

    >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2))).tolist()
    [5.0]
    """
    return jnp.mean(jnp.square(a - b).reshape(a.shape[0], -1), axis=1)


def adaptive_weight(error: Float[Array, " batch"], power: float, floor: float) -> Float[Array, " batch"]:
    """1 / (error + floor)^power, without gradient (MeanFlow, arXiv 2505.13447, section 4.3).

    Power 0 is the plain squared error. At power 1 the weighted loss is near 1 by construction,
    whatever the error: that is why the raw error is what gets logged.
    """
    return jax.lax.stop_gradient((error + floor) ** -power)


def drop_labels(
    key: Array, label: Int[Array, " batch"], rate: float, null_label: int | None
) -> tuple[Int[Array, " batch"], Bool[Array, " batch"]]:
    """Replace each label by the null label with probability `rate`; also say which were."""
    if rate == 0:
        return label, jnp.zeros(label.shape, bool)
    if null_label is None:
        raise InputError(f"label_dropout is {rate}, so a null_label is needed to replace the dropped labels.")
    dropped = jax.random.bernoulli(key, rate, label.shape)
    return jnp.where(dropped, null_label, label), dropped


def split_batch(x: Shaped[Array, "batch ..."], first: int, overlap: bool = False) -> tuple[Array, Array]:
    """Split a batch into `first` examples and as many others as remain, interleaved.

    Both parts are spread evenly over the batch, so on a sharded batch every device keeps its own. With `overlap`, the
    second part begins with the examples of the first again, and as many at its end are in neither.

    >>> head, tail = split_batch(jnp.arange(8), 2)
    >>> head.tolist(), tail.tolist()
    ([0, 4], [1, 2, 3, 5, 6, 7])
    >>> split_batch(jnp.arange(8), 2, overlap=True)[1].tolist()
    [0, 1, 2, 4, 5, 6]
    """
    groups = math.gcd(first, x.shape[0])
    grouped, size = x.reshape(groups, -1, *x.shape[1:]), first // groups
    head, tail = grouped[:, :size], grouped[:, : grouped.shape[1] - size] if overlap else grouped[:, size:]
    return head.reshape(-1, *x.shape[1:]), tail.reshape(-1, *x.shape[1:])


def join_batch(head: Shaped[Array, "first ..."], tail: Shaped[Array, "rest ..."]) -> Shaped[Array, "batch ..."]:
    """Undo `split_batch`."""
    groups = math.gcd(head.shape[0], head.shape[0] + tail.shape[0])
    parts = [part.reshape(groups, -1, *part.shape[1:]) for part in (head, tail)]
    return jnp.concatenate(parts, axis=1).reshape(-1, *head.shape[1:])
