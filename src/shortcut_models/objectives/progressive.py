"""Progressive distillation (Salimans & Ho, arXiv 2202.00512), as a baseline of the shortcut paper.

In stage k = 0, 1, ... one jump of length d = 2^(k+1) / levels learns to land where two jumps of the
teacher land, each half as long; then the network becomes the teacher of the next stage:

    L = E || s(x_t, t, d) - sg[ (T(x_t, t, d/2) + T(x', t + d/2, d/2)) / 2 ] ||^2,   x' = x_t + d/2 T(x_t, t, d/2)

with t a multiple of d. The first teacher is a trained flow, whose jumps of 1/levels are Euler steps;
guidance acts there and is inherited. After the last stage the network is made for one step alone.
`ORIGINAL` has the constants of the official code (`targets_progressive.py`), where the network is
not told d: there it is the only one of its stage.

Cost: 5 forward passes per step, 7 in the first stage with guidance.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from shortcut_models.errors import check_above_zero
from shortcut_models.objectives.base import (
    Batch,
    Context,
    Loss,
    Velocity,
    check_levels,
    errors_by_step,
    require_teacher,
)
from shortcut_models.objectives.path import (
    broadcast,
    clip_to,
    draw_noise,
    drop_labels,
    interpolate,
    squared_error,
)
from shortcut_models.objectives.stages import Staged
from shortcut_models.sampling import Jumps, dyadic_jumps, euler_jumps, guided


@dataclass(frozen=True, kw_only=True)
class Progressive(Staged):
    """Constants of progressive distillation."""

    needs_teacher: ClassVar[bool] = True
    learns_velocity: ClassVar[bool] = False
    restarts: ClassVar[bool] = True

    levels: int = 128
    """A power of two: the first teacher's number of steps. Each doubling of the step size is a stage."""
    tell_step: bool = True
    """Tell the network d; the original does not."""
    teacher_weights: Literal["ema", "raw"] = "ema"
    """What becomes the teacher of the next stage: the averaged weights, or those in training."""
    guidance: float = 1.0
    """Guidance scale of the first teacher; later stages inherit it. 1 is none."""
    clip: float | None = None
    """Bound on the point between the teacher's two jumps; 4 in the original."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.levels)
        check_above_zero("objective.", self, "clip")

    @property
    def num_stages(self) -> int:
        """One stage per doubling of the step size."""
        return self.levels.bit_length() - 1

    @property
    def snapshots(self) -> tuple[int, ...]:
        """The network becomes the teacher where a stage starts."""
        return self.stages.starts

    @property
    def averaged_teacher(self) -> bool:
        """As `teacher_weights` has it."""
        return self.teacher_weights == "ema"

    @property
    def levels_told(self) -> int:
        """All, if the network is told d."""
        return self.levels if self.tell_step else 0

    def jumps(self, steps: int) -> Jumps:
        """Dyadic jumps."""
        return dyadic_jumps(steps, self.levels) if self.tell_step else euler_jumps(steps)

    def supports(self, steps: int) -> bool:
        """The last stage's single step."""
        return steps == 1

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `Objective`; metrics are the raw squared error of each stage's step size."""
        teacher = require_teacher("progressive distillation", given.teacher)
        noise_key, time_key, label_key = jax.random.split(key, 3)
        stage, count = self.stages.at(given.images), batch.x1.shape[0]
        sections = (self.levels >> (stage + 1)).astype(jnp.float32)
        t = jnp.floor(jax.random.uniform(time_key, (count,)) * sections) / sections
        d = jnp.broadcast_to(1 / sections, (count,))
        x0 = draw_noise(noise_key, batch.x1, batch.x0)
        x_t, _ = interpolate(x0, batch.x1, t, self.noise_floor)
        label, _ = drop_labels(label_key, batch.label, self.label_dropout, given.null_label)

        half = d / 2
        told = jnp.where(stage == 0, 0.0, half) if self.tell_step else jnp.zeros_like(d)
        taught = self._taught(teacher, stage, given.null_label)
        v1 = taught(x_t, t, told, label)
        between = clip_to(self.clip, x_t + broadcast(half, x_t) * v1)
        v2 = taught(between, t + half, told, label)
        goal = jax.lax.stop_gradient((v1 + v2) / 2)

        error = squared_error(velocity(x_t, t, d if self.tell_step else jnp.zeros_like(d), label), goal)
        return Loss(self.weight(error) * error, errors_by_step(error, d, self.levels, "="))

    def _taught(self, teacher: Velocity, stage: Int[Array, ""], null_label: int | None) -> Velocity:
        """The teacher, guided in the first stage alone: only then are its two branches paid for."""
        first = guided(teacher, self.guidance, null_label)
        if self.guidance == 1:
            return teacher
        return lambda x, t, d, label: jax.lax.cond(stage == 0, first, teacher, x, t, d, label)


ORIGINAL = Progressive(
    tell_step=False, adaptive_power=0.0, label_dropout=0.0, clip=4.0, noise_floor=1e-5, averaging="constant"
)
"""The official code's constants; with `guidance` where its `bootstrap_cfg` is set."""
