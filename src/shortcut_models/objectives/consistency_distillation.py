"""Consistency distillation (Song et al., "Consistency Models", arXiv 2303.01469, algorithm 2).

One Euler step of a trained flow T leads to the point from which the same end must be reached:

    L = E || s(x_t, t, 1-t) - sg[ (x^ - x_t) / (1-t) ] ||^2,   x^ = x' + (1-t-d) s'(x', t+d, 1-t-d)
    x' = x_t + d T(x_t, t, 0),   d = 1/levels,   t a multiple of d

where s' is an average of the weights. `ORIGINAL` has the constants of the official code
(`targets_consistency_distillation.py`): its teacher is not guided, which the paper's is, its labels
are never dropped, its network is not told the step size, and it samples by Euler steps.

Cost: 5 forward passes per step, 6 with guidance.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from shortcut_models.errors import check_above_zero
from shortcut_models.objectives.base import (
    Batch,
    Bootstrapped,
    Context,
    Loss,
    Velocity,
    check_levels,
    errors_by_step,
    require_teacher,
)
from shortcut_models.objectives.consistency import consistency_target
from shortcut_models.objectives.path import clip_to, draw_noise, drop_labels, interpolate, squared_error
from shortcut_models.sampling import Jumps, guided, renoising_jumps, uniform_jumps


@dataclass(frozen=True, kw_only=True)
class ConsistencyDistillation(Bootstrapped):
    """Constants of consistency distillation."""

    needs_teacher: ClassVar[bool] = True
    learns_velocity: ClassVar[bool] = False

    levels: int = 128
    """A power of two: the teacher's number of Euler steps."""
    tell_step: bool = True
    """Tell the network d = 1 - t; the original tells it 0."""
    target_decay: float | None = 0.95
    """Decay per step of the average that makes the targets; .999 in the original."""
    guidance: float = 1.0
    """Guidance scale of the teacher; 1 is none, as in the original."""
    clip: float | None = None
    """Bound on the point after the teacher's step; 4 in the original."""
    sampler: Literal["renoise", "euler"] = "renoise"
    """Jump to the end and noise back to the next time, as the paper; or take equal steps along what the
    network answers, as the original."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.levels)
        check_above_zero("objective.", self, "clip")

    @property
    def levels_told(self) -> int:
        """All, if the network is told d."""
        return self.levels if self.tell_step else 0

    def jumps(self, steps: int) -> Jumps:
        """As `sampler` says; the network is told d = 1 - t in either case, or 0."""
        jumps = renoising_jumps(steps)
        if self.sampler == "euler":
            jumps = uniform_jumps(steps)._replace(d=jumps.d)
        return jumps if self.tell_step else jumps._replace(d=np.zeros_like(jumps.d))

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `Objective`; metrics are the raw squared error for each range of d = 1 - t."""
        teacher = require_teacher("consistency distillation", given.teacher)
        noise_key, time_key, label_key = jax.random.split(key, 3)
        t = jax.random.randint(time_key, batch.x1.shape[:1], 0, self.levels) / self.levels
        d = 1 / self.levels
        x0 = draw_noise(noise_key, batch.x1, batch.x0)
        x_t, _ = interpolate(x0, batch.x1, t, self.noise_floor)
        label, _ = drop_labels(label_key, batch.label, self.label_dropout, given.null_label)

        taught = guided(teacher, self.guidance, given.null_label)
        later = clip_to(self.clip, x_t + d * taught(x_t, t, jnp.zeros_like(t), label))
        told = (lambda d: d) if self.tell_step else jnp.zeros_like
        goal = consistency_target(given.target or velocity, x_t, t, later, t + d, label, told)
        error = squared_error(velocity(x_t, t, told(1 - t), label), goal)
        return Loss(self.weight(error) * error, errors_by_step(error, 1 - t, self.levels, "<="))


ORIGINAL = ConsistencyDistillation(
    tell_step=False,
    target_decay=0.999,
    adaptive_power=0.0,
    label_dropout=0.0,
    clip=4.0,
    noise_floor=1e-5,
    sampler="euler",
    averaging="constant",
)
"""The official code's constants."""
