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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from shortcut_models.errors import InputError
from shortcut_models.objectives.flow import (
    Loss,
    Objective,
    Velocity,
    adaptive_weight,
    broadcast,
    check_fraction,
    check_levels,
    clip_to,
    drop_labels,
    errors_by_step,
    interpolate,
    squared_error,
)
from shortcut_models.objectives.stages import Stages
from shortcut_models.sampling import Jumps, dyadic_jumps, euler_jumps, guided


@dataclass(frozen=True)
class Progressive(Objective):
    """Constants of progressive distillation."""

    total_images: int = 0
    """Images over which the log2(levels) stages are spread evenly: max_steps x batch_size."""
    levels: int = 128
    """A power of two: the first teacher's number of steps."""
    tell_step: bool = True
    """Tell the network d; the original does not."""
    adaptive_power: float = 1.0
    """p of the weight 1 / (error + floor)^p; 0 is the plain squared error."""
    adaptive_floor: float = 0.01
    """Floor of that weight."""
    label_dropout: float = 0.1
    """Share of the labels replaced by the null label; 0 in the original."""
    guidance: float = 1.0
    """Guidance scale of the first teacher; later stages inherit it. 1 is none."""
    clip: float | None = None
    """Bound on the point between the teacher's two jumps; 4 in the original."""
    noise_floor: float = 0.0
    """Share of the noise left at t=1; 1e-5 in the original."""

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_fraction("objective.label_dropout", self.label_dropout)

    @property
    def stages(self) -> Stages:
        """One stage per doubling of the step size."""
        return Stages(self.levels.bit_length() - 1, self.total_images)

    @property
    def needs_teacher(self) -> bool:
        """A trained flow."""
        return True

    @property
    def learns_velocity(self) -> bool:
        """Jumps alone."""
        return False

    @property
    def snapshots(self) -> tuple[int, ...]:
        """The network becomes the teacher where a stage starts."""
        return self.stages.starts

    def check_length(self, images: int) -> None:
        """All stages must fit, or the network would end made for more than one step."""
        self.stages.check("progressive distillation", images)

    def jumps(self, steps: int) -> Jumps:
        """Dyadic jumps."""
        return dyadic_jumps(steps, self.levels) if self.tell_step else euler_jumps(steps)

    def meant_for(self, steps: int) -> bool:
        """The last stage's single step."""
        return steps == 1

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
        """See `Objective`; metrics are the raw squared error of each stage's step size."""
        del target
        if teacher is None:
            raise InputError("progressive distillation needs a teacher: the network of a trained flow.")
        noise_key, time_key, label_key = jax.random.split(key, 3)
        stage = self.stages.at(images)
        sections = (self.levels >> (stage + 1)).astype(jnp.float32)
        count = x1.shape[0]
        t = jnp.floor(jax.random.uniform(time_key, (count,)) * sections) / sections
        d = jnp.broadcast_to(1 / sections, (count,))
        x0 = jax.random.normal(noise_key, x1.shape) if x0 is None else x0
        x_t, _ = interpolate(x0, x1, t, self.noise_floor)
        label, _ = drop_labels(label_key, label, self.label_dropout, null_label)

        half = d / 2
        told = jnp.where(stage == 0, 0.0, half) if self.tell_step else jnp.zeros_like(d)
        taught = self._taught(teacher, stage, null_label)
        v1 = taught(x_t, t, told, label)
        between = clip_to(self.clip, x_t + broadcast(half, x_t) * v1)
        v2 = taught(between, t + half, told, label)
        goal = jax.lax.stop_gradient((v1 + v2) / 2)

        error = squared_error(velocity(x_t, t, d if self.tell_step else jnp.zeros_like(d), label), goal)
        weight = adaptive_weight(error, self.adaptive_power, self.adaptive_floor)
        return Loss(weight * error, errors_by_step(error, d, self.levels, "="))

    def _taught(self, teacher: Velocity, stage: Int[Array, ""], null_label: int | None) -> Velocity:
        """The teacher, guided in the first stage alone: only then are its two branches paid for."""
        first = guided(teacher, self.guidance, null_label)
        if self.guidance == 1:
            return teacher
        return lambda x, t, d, label: jax.lax.cond(stage == 0, first, teacher, x, t, d, label)


ORIGINAL = Progressive(tell_step=False, adaptive_power=0.0, label_dropout=0.0, clip=4.0, noise_floor=1e-5)
"""The official code's constants; with `guidance` where its `bootstrap_cfg` is set."""
