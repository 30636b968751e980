"""Flow matching: the instantaneous velocity alone (Lipman et al., arXiv 2210.02747).

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2

The original's `--model.train_type naive`. Needs many steps; cost 3 forward passes per step.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from shortcut_models.objectives.flow import (
    Loss,
    Metric,
    Objective,
    Times,
    Velocity,
    adaptive_weight,
    check_fraction,
    check_pairs,
    drop_labels,
    interpolate,
    squared_error,
)
from shortcut_models.sampling import Jumps, euler_jumps


@dataclass(frozen=True)
class FlowMatching(Objective):
    """Constants of flow matching."""

    times: Times = field(default_factory=Times)
    """Distribution of t."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label, which guidance needs."""
    adaptive_power: float = 0.0
    """p of the weight 1 / (error + floor)^p; 0 is the plain squared error."""
    adaptive_floor: float = 0.01
    """Floor of that weight."""

    def __post_init__(self) -> None:
        check_fraction("objective.label_dropout", self.label_dropout)

    def jumps(self, steps: int) -> Jumps:
        """Euler steps: jumps of any length, always with the velocity at d=0."""
        return euler_jumps(steps)

    def meant_for(self, steps: int) -> bool:
        """Many steps: below 32 the error of Euler's method shows (the paper's table 1)."""
        return steps >= 32

    def __call__(
        self,
        velocity: Velocity,
        x1: Float[Array, "batch ..."],
        label: Int[Array, " batch"],
        key: Array,
        *,
        x0: Float[Array, "batch ..."] | None = None,
        target: Velocity | None = None,
        teacher: Velocity | None = None,
        images: Integer[Array, ""] | int = 0,
        null_label: int | None = None,
    ) -> Loss:
        """See `Objective`; the only metric is the raw squared error."""
        del target, teacher, images
        check_pairs(self, x0 is not None)
        noise_key, time_key, label_key = jax.random.split(key, 3)
        t = self.times.draw(time_key, x1.shape[0])
        x0 = jax.random.normal(noise_key, x1.shape) if x0 is None else x0
        x_t, v = interpolate(x0, x1, t)
        label, _ = drop_labels(label_key, label, self.label_dropout, null_label)
        error = squared_error(velocity(x_t, t, jnp.zeros_like(t), label), v)
        weight = adaptive_weight(error, self.adaptive_power, self.adaptive_floor)
        return Loss(weight * error, {"error/d=0": Metric(error, jnp.ones_like(error))})
