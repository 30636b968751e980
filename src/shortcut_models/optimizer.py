"""AdamW and its schedule (Loshchilov & Hutter, arXiv 1711.05101)."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from shortcut_models.errors import InputError, check_above_zero, check_at_least, check_values
from shortcut_models.networks import Params


@dataclass(frozen=True)
class Optimizer:
    """Settings of AdamW and its schedule."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: stay at the peak, or fall to 0 along half a cosine."""
    cycles: int = 1
    """Cosines one after another, of equal length: a method with stages may start each at the peak."""
    decay_steps: int = 0
    """Step at which the cosine reaches 0. Apart from max_steps, so that a run can stop early and go on."""
    beta1: float = 0.9
    """Decay of the gradient's average."""
    beta2: float = 0.999
    """Decay of the squared gradient's average."""
    weight_decay: float = 0.0
    """Decoupled decay."""
    decayed: Literal["kernels", "all"] = "kernels"
    """What decays: matrices alone, or every parameter, biases and embedding tables too, as in the original."""
    clip_norm: float = 0.0
    """Bound on the gradient's global norm; 0 is none."""

    def __post_init__(self) -> None:
        check_values("optimizer.", self)
        check_above_zero("optimizer.", self, "learning_rate")
        nonnegative = ("warmup_steps", "decay_steps", "weight_decay", "clip_norm")
        check_at_least("optimizer.", self, dict.fromkeys(nonnegative, 0) | {"cycles": 1})
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}, but must be at least 0 and below 1.")
        steps = self.decay_steps - self.warmup_steps
        if self.schedule == "cosine" and steps <= 0:
            raise InputError(
                f"optimizer.decay_steps is {self.decay_steps}, but the cosine must end after the warm-up's "
                f"{self.warmup_steps} steps: set --optimizer.decay-steps to the number of steps that you plan to train."
            )
        if self.schedule == "cosine" and self.cycles > steps:
            raise InputError(
                f"optimizer.cycles is {self.cycles}, but a cosine takes at least a step, and {steps} follow the "
                "warm-up: train longer, or in fewer cycles."
            )


def make_schedule(config: Optimizer) -> optax.Schedule:
    """Learning rate as a function of the step: linear warm-up, then constant or cosine (or cosines) to 0."""
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        length, cycle = config.decay_steps - warmup, optax.cosine_decay_schedule(peak, 1)
        # Past the last cycle the rate stays at 0.
        after = lambda step: cycle(jnp.where(step < length, step * config.cycles / length % 1, 1))  # noqa: E731
    else:
        after = optax.constant_schedule(peak)
    # The first step of a warm-up is already above 0, so that no step is wasted.
    return optax.join_schedules(
        [optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1)), after], [warmup]
    )


def make_optimizer(config: Optimizer) -> optax.GradientTransformation:
    """AdamW with the schedule; clipping first if asked for. Matrices are the leaves named "kernel"."""

    def matrices(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)

    mask = matrices if config.decayed == "kernels" else None
    adamw = optax.adamw(make_schedule(config), config.beta1, config.beta2, weight_decay=config.weight_decay, mask=mask)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw
