"""What each choice of the sampler is worth: drawing with one of them undone."""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.speed.measure import config
from benchmarks.speed.sampler import Sampler
from shortcut_models import sampling
from shortcut_models.networks import DiT, Params
from shortcut_models.objectives.flow import Velocity

STACKED = "blocks stacked, as they are trained"
TWICE = "guided by two calls, not by one of twice the batch"
FIXED = "steps fixed when compiling"


def without(name: str, network: DiT, batch: int, guided: bool) -> Sampler:
    """The sampler, with a choice undone unless `name` is empty."""
    kind = {"": Sampler, STACKED: Stacked, TWICE: Twice, FIXED: Fixed}[name]
    return kind(network, batch, guided)


class Stacked(Sampler):
    """Drawing with the blocks' weights in one array each, so that every call takes them apart."""

    def __init__(self, network: DiT, batch: int, guided: bool) -> None:
        with mock.patch.object(DiT, "apart", lambda _, params: params):
            super().__init__(network, batch, guided)


class Twice(Sampler):
    """Drawing with the label and without it by two calls of the network."""

    def draw(self, params: Params, indices: Array, label: Array, jumps: sampling.Jumps, count: Array) -> Array:
        """Noise, then jumps."""
        with mock.patch.object(sampling, "guided", _guided_twice):
            return super().draw(params, indices, label, jumps, count)


class Fixed(Sampler):
    """Drawing by a program for each number of steps."""

    def compile(self) -> None:
        """Forget what was compiled; the next call compiles."""
        self.program: Any = jax.jit(self._draw_fixed, static_argnums=3)

    def _draw_fixed(self, params: Params, indices: Array, label: Array, steps: int) -> Array:
        def fixed(velocity: Velocity, start: Array, label: Array, *_: Any) -> Array:
            return sampling.sample(velocity, start, label, sampling.uniform_jumps(steps))

        with mock.patch.object(sampling, "sample_any", fixed):
            return self.draw(params, indices, label, sampling.uniform_jumps(1), jnp.int32(1))

    def __call__(self, steps: int) -> np.ndarray:
        """The images."""
        return np.asarray(self.program(self.params, self.indices, self.label, steps))


class Budgets:
    """One image by 1, by 4 and by 128 steps, compiled anew at every call."""

    def __init__(self, undo: str = "", **model: Any) -> None:
        jax.config.update("jax_enable_compilation_cache", False)
        self.sampler = without(undo, config("digits", **model).model, 1, guided=False)

    def __call__(self) -> None:
        jax.clear_caches()
        self.sampler.compile()
        for steps in (1, 4, 128):
            self.sampler(steps)


def _guided_twice(velocity: Velocity, guidance: float, null_label: int) -> Velocity:
    def both(x: Array, t: Array, d: Array, label: Array) -> Array:
        conditional, unconditional = (velocity(x, t, d, which) for which in (label, jnp.full_like(label, null_label)))
        return unconditional + guidance * (conditional - unconditional)

    return both
