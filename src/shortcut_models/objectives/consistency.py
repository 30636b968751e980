"""Consistency training (Song et al., "Consistency Models", arXiv 2303.01469), on the straight path.

From two points of the same noise and image, d apart, the network must jump to the same end; at the
later point an average of the weights says where that is:

    L = E || s(x_t, t, 1-t) - sg[ (x^ - x_t) / (1-t) ] ||^2,   x^ = x_(t+d) + (1-t-d) s'(x_(t+d), t+d, 1-t-d)

Stage j = 0, 1, ... has d = 1/2^j and t a multiple of it: coarse, biased but quick to learn first,
fine at last. `ORIGINAL` has the constants of the official code (`targets_consistency_training.py`),
where the network is not told the step size: for each t there is but one.

Cost: 4 forward passes per step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shortcut_models.objectives.base import (
    Batch,
    Bootstrapped,
    Context,
    Loss,
    Velocity,
    check_levels,
    errors_by_step,
)
from shortcut_models.objectives.path import broadcast, draw_noise, drop_labels, interpolate, squared_error
from shortcut_models.objectives.stages import Staged
from shortcut_models.sampling import Jumps, renoising_jumps


@dataclass(frozen=True, kw_only=True)
class Consistency(Staged, Bootstrapped):
    """Constants of consistency training."""

    learns_velocity: ClassVar[bool] = False

    levels: int = 128
    """A power of two; each halving of the distance is a stage, and the last one has levels/2 times."""
    tell_step: bool = True
    """Tell the network d = 1 - t; the original tells it 0."""
    target_decay: float | None = 0.95
    """Decay per step of the average that makes the targets; .999 in the original."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.levels)

    @property
    def num_stages(self) -> int:
        """One stage per halving of the distance between the two points."""
        return self.levels.bit_length() - 1

    @property
    def levels_told(self) -> int:
        """The last stage's times, if the network is told d."""
        return self.levels // 2 if self.tell_step else 0

    def jumps(self, steps: int) -> Jumps:
        """Jumps to the end, noised back in between."""
        jumps = renoising_jumps(steps)
        return jumps if self.tell_step else jumps._replace(d=np.zeros_like(jumps.d))

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `Objective`; metrics are the raw squared error for each range of d = 1 - t."""
        noise_key, time_key, label_key = jax.random.split(key, 3)
        sections = (1 << self.stages.at(given.images)).astype(jnp.float32)
        t = jnp.floor(jax.random.uniform(time_key, batch.x1.shape[:1]) * sections) / sections
        x0 = draw_noise(noise_key, batch.x1, batch.x0)
        x_t, _ = interpolate(x0, batch.x1, t, self.noise_floor)
        later, _ = interpolate(x0, batch.x1, t + 1 / sections, self.noise_floor)
        label, _ = drop_labels(label_key, batch.label, self.label_dropout, given.null_label)

        told = (lambda d: d) if self.tell_step else jnp.zeros_like
        goal = consistency_target(given.target or velocity, x_t, t, later, t + 1 / sections, label, told)
        error = squared_error(velocity(x_t, t, told(1 - t), label), goal)
        return Loss(self.weight(error) * error, errors_by_step(error, 1 - t, self.levels, "<="))


def consistency_target(
    network: Velocity,
    x: Float[Array, "batch ..."],
    t: Float[Array, " batch"],
    later: Float[Array, "batch ..."],
    t_later: Float[Array, " batch"],
    label: Int[Array, " batch"],
    told: Callable[[Array], Array],
) -> Float[Array, "batch ..."]:
    """The velocity that takes x to where the network jumps from the point `later`; without gradient."""
    rest = 1 - t_later
    end = later + broadcast(rest, x) * network(later, t_later, told(rest), label)
    return jax.lax.stop_gradient((end - x) / broadcast(1 - t, x))


ORIGINAL = Consistency(
    tell_step=False,
    target_decay=0.999,
    adaptive_power=0.0,
    label_dropout=0.0,
    noise_floor=1e-5,
    averaging="constant",
)
"""The official code's constants."""
