"""Flow matching: the instantaneous velocity alone (Lipman et al., arXiv 2210.02747).

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2

`ORIGINAL` has the constants of the official code's `--model.train_type naive`. Needs many steps;
cost 3 forward passes per step.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array

from shortcut_models.objectives.base import Batch, Context, Loss, Objective, Velocity, only_velocity
from shortcut_models.objectives.path import Times, draw_noise, drop_labels, interpolate, squared_error
from shortcut_models.sampling import Jumps, euler_jumps


@dataclass(frozen=True, kw_only=True)
class FlowMatching(Objective):
    """Constants of flow matching."""

    times: Times = field(default_factory=Times)
    """Distribution of t."""
    adaptive_power: float = 0.0
    """p of the weight 1 / (error + floor)^p; 0 is the plain squared error."""

    def jumps(self, steps: int) -> Jumps:
        """Euler steps: jumps of any length, always with the velocity at d=0."""
        return euler_jumps(steps)

    def supports(self, steps: int) -> bool:
        """Many steps: below 32 the error of Euler's method shows (the paper's table 1)."""
        return steps >= 32

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `Objective`; the only metric is the raw squared error."""
        noise_key, time_key, label_key = jax.random.split(key, 3)
        t = self.times.draw(time_key, batch.x1.shape[0])
        x0 = draw_noise(noise_key, batch.x1, batch.x0)
        x_t, v = interpolate(x0, batch.x1, t, self.noise_floor)
        label, _ = drop_labels(label_key, batch.label, self.label_dropout, given.null_label)
        error = squared_error(velocity(x_t, t, jnp.zeros_like(t), label), v)
        return Loss(self.weight(error) * error, only_velocity(error))


ORIGINAL = FlowMatching(times=Times(kind="grid", grid=128), noise_floor=1e-5, averaging="constant")
"""The official code's constants."""
