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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from shortcut_models.objectives.flow import (
    Loss,
    Objective,
    Velocity,
    adaptive_weight,
    broadcast,
    check_decay,
    check_fraction,
    check_levels,
    drop_labels,
    errors_by_step,
    interpolate,
    squared_error,
)
from shortcut_models.objectives.stages import Stages
from shortcut_models.sampling import Jumps, renoising_jumps


@dataclass(frozen=True)
class Consistency(Objective):
    """Constants of consistency training."""

    total_images: int = 0
    """Images over which the log2(levels) stages are spread evenly: max_steps x batch_size."""
    levels: int = 128
    """A power of two; the last stage has levels/2 times."""
    tell_step: bool = True
    """Tell the network d = 1 - t; the original tells it 0."""
    target_decay: float | None = 0.95
    """Decay per step of the average that makes the targets; .999 in the original."""
    adaptive_power: float = 1.0
    """p of the weight 1 / (error + floor)^p; 0 is the plain squared error."""
    adaptive_floor: float = 0.01
    """Floor of that weight."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label; 0 in the original."""
    noise_floor: float = 0.0
    """Share of the noise left at t=1; 1e-5 in the original."""

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_decay(self.target_decay)
        check_fraction("objective.label_dropout", self.label_dropout)

    @property
    def stages(self) -> Stages:
        """One stage per halving of the distance between the two points."""
        return Stages(self.levels.bit_length() - 1, self.total_images)

    @property
    def learns_velocity(self) -> bool:
        """Jumps to the end alone."""
        return False

    def check_length(self, images: int) -> None:
        """All stages must fit, or the targets would stay coarse."""
        self.stages.check("consistency training", images)

    def jumps(self, steps: int) -> Jumps:
        """Jumps to the end, noised back in between."""
        jumps = renoising_jumps(steps)
        return jumps if self.tell_step else jumps._replace(d=np.zeros_like(jumps.d))

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
        """See `Objective`; metrics are the raw squared error for each range of d = 1 - t."""
        del teacher
        noise_key, time_key, label_key = jax.random.split(key, 3)
        sections = (1 << self.stages.at(images)).astype(jnp.float32)
        t = jnp.floor(jax.random.uniform(time_key, x1.shape[:1]) * sections) / sections
        x0 = jax.random.normal(noise_key, x1.shape) if x0 is None else x0
        x_t, _ = interpolate(x0, x1, t, self.noise_floor)
        later, _ = interpolate(x0, x1, t + 1 / sections, self.noise_floor)
        label, _ = drop_labels(label_key, label, self.label_dropout, null_label)

        told = (lambda d: d) if self.tell_step else jnp.zeros_like
        goal = consistency_target(target or velocity, x_t, t, later, t + 1 / sections, label, told)
        error = squared_error(velocity(x_t, t, told(1 - t), label), goal)
        weight = adaptive_weight(error, self.adaptive_power, self.adaptive_floor)
        return Loss(weight * error, errors_by_step(error, 1 - t, self.levels, "<="))


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


ORIGINAL = Consistency(tell_step=False, target_decay=0.999, adaptive_power=0.0, label_dropout=0.0, noise_floor=1e-5)
"""The official code's constants."""
