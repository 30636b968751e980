"""Sampling: a list of jumps from noise at t=0 to data at t=1.

Algorithm 2 of "One Step Diffusion via Shortcut Models" (arXiv 2410.12557), for any number of steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from shortcut_models.errors import InputError


class Jumps(NamedTuple):
    """Jumps in order; three arrays of one float32 per jump."""

    t: np.ndarray
    """Where each starts: 0 for the first."""
    length: np.ndarray
    """How far each goes; they sum to 1."""
    d: np.ndarray
    """The step size that the network is told: the length, or 0 for the instantaneous velocity."""


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps is {steps}, but sampling takes at least 1 step.")


def uniform_jumps(steps: int) -> Jumps:
    """Equal jumps, for networks that know every step size in [0, 1]."""
    _check_steps(steps)
    length = np.full(steps, 1 / steps, np.float32)
    return Jumps((np.arange(steps) / steps).astype(np.float32), length, length)


def euler_jumps(steps: int) -> Jumps:
    """Equal jumps along the instantaneous velocity, for networks trained by flow matching alone."""
    jumps = uniform_jumps(steps)
    return jumps._replace(d=np.zeros_like(jumps.d))


def dyadic_jumps(steps: int, levels: int = 128) -> Jumps:
    """Jumps that a dyadic network was trained on: lengths 1/2^k, each at a multiple of its length.

    Starts from the largest power of two of equal jumps and halves the last ones, those near the
    data, until there are `steps` of them: 3 = 1/2 + 1/4 + 1/4. Jumps of 1/levels or less are told
    d=0, as in training. A budget above `levels` is an even grid along the velocity.
    """
    _check_steps(steps)
    if steps > levels:
        return euler_jumps(steps)
    coarse = 2 ** (steps.bit_length() - 1)
    halved = steps - coarse
    length = np.repeat([1 / coarse, 0.5 / coarse], [coarse - halved, 2 * halved])
    t = np.concatenate([[0.0], np.cumsum(length)[:-1]])
    d = np.where(length <= 1 / levels, 0.0, length)
    return Jumps(*(a.astype(np.float32) for a in (t, length, d)))


def noise(seed: int, indices: Int[Array, " batch"], shape: tuple[int, ...]) -> Float[Array, "batch ..."]:
    """Standard normal noise; that of image i depends on (seed, i) alone, whatever it is batched with."""
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), shape))(indices)


def guided(
    velocity: Callable[[Array, Array, Array, Array], Array], guidance: float, null_label: int | None
) -> Callable[[Array, Array, Array, Array], Array]:
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598): v_null + guidance * (v_label - v_null).

    Both branches go through the network in one call of twice the batch. Guidance 1 is the plain
    conditional velocity, at no extra cost. Raises InputError if there is no null label to guide from.
    """
    if guidance == 1:
        return velocity
    if null_label is None:
        raise InputError(f"guidance {guidance} needs a network with a null label: use guidance 1.")

    def both(x: Array, t: Array, d: Array, label: Array) -> Array:
        null = jnp.full_like(label, null_label)
        x, t, d = (jnp.concatenate([a, a]) for a in (x, t, d))
        conditional, unconditional = jnp.split(velocity(x, t, d, jnp.concatenate([label, null])), 2)
        return unconditional + guidance * (conditional - unconditional)

    return both


def sample_path(
    velocity: Callable[[Array, Array, Array, Array], Array],
    start: Float[Array, "batch ..."],
    label: Int[Array, " batch"],
    jumps: Jumps,
) -> tuple[Float[Array, "batch ..."], Float[Array, "steps batch ..."]]:
    """Follow the jumps from `start`, noise at t=0; return the samples and the point after each jump."""
    batch = start.shape[0]

    def jump(x: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        t, length, d = step
        x = x + length * velocity(x, jnp.full(batch, t), jnp.full(batch, d), label)
        return x, x

    return lax.scan(jump, start, (jnp.asarray(jumps.t), jnp.asarray(jumps.length), jnp.asarray(jumps.d)))


def sample(
    velocity: Callable[[Array, Array, Array, Array], Array],
    start: Float[Array, "batch ..."],
    label: Int[Array, " batch"],
    jumps: Jumps,
) -> Float[Array, "batch ..."]:
    """Follow the jumps from `start`, noise at t=0, to samples at t=1, one network call a jump."""
    # Under jit the unused path is never stored.
    return sample_path(velocity, start, label, jumps)[0]
