"""Consistency distillation (Song et al., "Consistency Models", arXiv 2303.01469, algorithm 2).

One Euler step of a trained flow T leads to the point from which the same end must be reached:

    L = E || s(x_t, t, 1-t) - sg[ (x^ - x_t) / (1-t) ] ||^2,   x^ = x' + (1-t-d) s'(x', t+d, 1-t-d)
    x' = x_t + d T(x_t, t, 0),   d = 1/levels,   t a multiple of d

where s' is an average of the weights. `ORIGINAL` has the constants of the official code
(`targets_consistency_distillation.py`): its teacher is not guided, which the paper's is, its labels
are never dropped, and its network is not told the step size.

Cost: 5 forward passes per step, 6 with guidance.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from shortcut_models.errors import InputError
from shortcut_models.objectives.consistency import consistency_target
from shortcut_models.objectives.flow import (
    Loss,
    Objective,
    Velocity,
    adaptive_weight,
    check_decay,
    check_fraction,
    check_levels,
    clip_to,
    drop_labels,
    errors_by_step,
    interpolate,
    squared_error,
)
from shortcut_models.sampling import Jumps, guided, renoising_jumps


@dataclass(frozen=True)
class ConsistencyDistillation(Objective):
    """Constants of consistency distillation."""

    levels: int = 128
    """A power of two: the teacher's number of Euler steps."""
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
    guidance: float = 1.0
    """Guidance scale of the teacher; 1 is none, as in the original."""
    clip: float | None = None
    """Bound on the point after the teacher's step; 4 in the original."""
    noise_floor: float = 0.0
    """Share of the noise left at t=1; 1e-5 in the original."""

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_decay(self.target_decay)
        check_fraction("objective.label_dropout", self.label_dropout)

    @property
    def needs_teacher(self) -> bool:
        """A trained flow."""
        return True

    @property
    def learns_velocity(self) -> bool:
        """Jumps to the end alone."""
        return False

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
        del images
        if teacher is None:
            raise InputError("consistency distillation needs a teacher: the network of a trained flow.")
        noise_key, time_key, label_key = jax.random.split(key, 3)
        t = jax.random.randint(time_key, x1.shape[:1], 0, self.levels) / self.levels
        d = 1 / self.levels
        x0 = jax.random.normal(noise_key, x1.shape) if x0 is None else x0
        x_t, _ = interpolate(x0, x1, t, self.noise_floor)
        label, _ = drop_labels(label_key, label, self.label_dropout, null_label)

        taught = guided(teacher, self.guidance, null_label)
        later = clip_to(self.clip, x_t + d * taught(x_t, t, jnp.zeros_like(t), label))
        told = (lambda d: d) if self.tell_step else jnp.zeros_like
        goal = consistency_target(target or velocity, x_t, t, later, t + d, label, told)
        error = squared_error(velocity(x_t, t, told(1 - t), label), goal)
        weight = adaptive_weight(error, self.adaptive_power, self.adaptive_floor)
        return Loss(weight * error, errors_by_step(error, 1 - t, self.levels, "<="))


ORIGINAL = ConsistencyDistillation(
    tell_step=False, target_decay=0.999, adaptive_power=0.0, label_dropout=0.0, clip=4.0, noise_floor=1e-5
)
"""The official code's constants."""
