"""A multilayer perceptron for points: the smallest network that fits the seam."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from shortcut_models.errors import InputError, check_above_zero, check_at_least, check_values
from shortcut_models.networks.base import Network, Params
from shortcut_models.networks.layers import dense, init_dense, rows_of, sinusoid


@dataclass(frozen=True)
class MLP(Network):
    """Constants of a perceptron on points, and the pure pair `init` and `apply` that they define."""

    dimensions: int = 2
    """Coordinates of a point."""
    hidden_size: int = 128
    """Width of every hidden layer."""
    depth: int = 3
    """Number of hidden layers, from 1 up."""
    num_classes: int = 0
    """Number of labels; label `num_classes` is the null label, the only one by default."""
    frequencies: int = 32
    """Sinusoids for each of t and d; an even number."""
    time_scale: float = 10.0
    """Factor on t and d before the sinusoids."""

    def __post_init__(self) -> None:
        check_values("model.", self)
        check_above_zero("model.", self, "time_scale")
        check_at_least("model.", self, {"dimensions": 1, "hidden_size": 1, "depth": 1, "num_classes": 0})
        if self.frequencies < 2 or self.frequencies % 2:
            raise InputError(f"model.frequencies is {self.frequencies}, but must be an even number from 2 up.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (dimensions,)."""
        return (self.dimensions,)

    def sized(self, shape: tuple[int, ...], num_classes: int) -> Self:
        """For points of so many coordinates; raises InputError for data of another shape."""
        if len(shape) != 1:
            raise InputError(
                f"these data have items of shape {shape}, but model mlp takes points (dimensions,): "
                "choose another --model."
            )
        return replace(self, dimensions=shape[0], num_classes=num_classes)

    def init(self, key: Array) -> Params:
        """Draw float32 parameters; the last layer is zero, so the first velocity is zero."""
        inputs = self.dimensions + 2 * self.frequencies + self.num_classes + 1
        widths = [inputs, *[self.hidden_size] * self.depth]
        keys = jax.random.split(key, self.depth)
        params: Params = {f"hidden{i}": init_dense(keys[i], widths[i], widths[i + 1]) for i in range(self.depth)}
        zeros = jnp.zeros((self.hidden_size, self.dimensions))
        params["out"] = {"kernel": zeros, "bias": jnp.zeros(self.dimensions)}
        return params

    def apply(
        self,
        params: Params,
        x: Float[Array, "batch dimensions"],
        t: Float[Array, " batch"],
        d: Float[Array, " batch"],
        label: Int[Array, " batch"],
    ) -> Float[Array, "batch dimensions"]:
        """Velocity at the points x; arguments as for `DiT.apply`."""
        scale, width = self.time_scale, self.frequencies
        h = [x, sinusoid(scale * t, width), sinusoid(scale * d, width), jax.nn.one_hot(label, self.num_classes + 1)]
        hidden = jnp.concatenate(h, axis=-1)
        for i in range(self.depth):
            hidden = jax.nn.silu(dense(params[f"hidden{i}"], hidden))
        return dense(params["out"], hidden)

    def without_step(self, params: Params, d: float = 0.0) -> Params:
        """See `Network`: what `d` adds to the first layer becomes a part of its bias."""
        kernel, bias = params["hidden0"]["kernel"], params["hidden0"]["bias"]
        first = self.dimensions + self.frequencies
        rows = slice(first, first + self.frequencies)
        step = sinusoid(self.time_scale * jnp.full(1, d, jnp.float32), self.frequencies)
        with jax.default_matmul_precision("highest"):
            bias = bias + (step @ kernel[rows])[0]
        return {**params, "hidden0": {"kernel": jnp.asarray(kernel).at[rows].set(0), "bias": bias}}

    def with_classes(self, params: Params, labels: Sequence[int]) -> Params:
        """See `Network`: the labels' rows of the first layer, its last."""
        kernel, bias = jnp.asarray(params["hidden0"]["kernel"]), params["hidden0"]["bias"]
        others, table = jnp.split(kernel, [len(kernel) - 1 - self.num_classes])
        rows = jnp.concatenate([others, rows_of(table, labels)])
        return {**params, "hidden0": {"kernel": rows, "bias": bias}}
