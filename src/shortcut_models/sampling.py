"""Sampling: a list of jumps from noise at t=0 to data at t=1.

Algorithm 2 of "One Step Diffusion via Shortcut Models" (arXiv 2410.12557), for any number of steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Integer, Key

from shortcut_models.errors import InputError


class Jumps(NamedTuple):
    """Jumps in order; four arrays of one float32 per jump."""

    t: np.ndarray
    """Where each starts: 0 for the first."""
    length: np.ndarray
    """How far each goes; they sum to 1."""
    d: np.ndarray
    """The step size that the network is told: the length, or 0 for the instantaneous velocity."""
    renoise: np.ndarray
    """Time to which the point is noised back after the jump; 1 for not at all."""


MOST_STEPS = 1_000_000
"""More than any sampler has a use for: the jumps are kept in memory."""


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps is {steps}, but sampling takes at least 1 step.")
    if steps > MOST_STEPS:
        raise InputError(f"steps is {steps}, but sampling takes at most {MOST_STEPS:,} steps.")


def uniform_jumps(steps: int) -> Jumps:
    """Equal jumps, for networks that know every step size in [0, 1].

    >>> uniform_jumps(4).t.tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    _check_steps(steps)
    length = np.full(steps, 1 / steps, np.float32)
    return Jumps((np.arange(steps) / steps).astype(np.float32), length, length, np.ones_like(length))


def euler_jumps(steps: int) -> Jumps:
    """Equal jumps along the instantaneous velocity, for networks trained by flow matching alone.

    >>> jumps = euler_jumps(2)
    >>> jumps.length.tolist(), jumps.d.tolist()
    ([0.5, 0.5], [0.0, 0.0])
    """
    jumps = uniform_jumps(steps)
    return jumps._replace(d=np.zeros_like(jumps.d))


def dyadic_jumps(steps: int, levels: int = 128) -> Jumps:
    """Jumps that a dyadic network was trained on: lengths 1/2^k, each at a multiple of its length.

    Starts from the largest power of two of equal jumps and halves the last ones, those near the
    data, until there are `steps` of them: 3 = 1/2 + 1/4 + 1/4. Jumps of 1/levels or less are told
    d=0, as in training. A budget above `levels` is an even grid along the velocity.

    >>> jumps = dyadic_jumps(3)
    >>> jumps.t.tolist(), jumps.length.tolist()
    ([0.0, 0.5, 0.75], [0.5, 0.25, 0.25])
    """
    _check_steps(steps)
    if steps > levels:
        return euler_jumps(steps)
    coarse = 2 ** (steps.bit_length() - 1)
    halved = steps - coarse
    length = np.repeat([1 / coarse, 0.5 / coarse], [coarse - halved, 2 * halved])
    t = np.concatenate([[0.0], np.cumsum(length)[:-1]])
    d = np.where(length <= 1 / levels, 0.0, length)
    return Jumps(*(a.astype(np.float32) for a in (t, length, d, np.ones(steps))))


def renoising_jumps(steps: int) -> Jumps:
    """Jumps to the end, each noised back to where an even grid would be: the sampler of consistency models.

    Song et al., "Consistency Models" (arXiv 2303.01469), algorithm 1. The network is told d = 1 - t.

    >>> jumps = renoising_jumps(2)
    >>> jumps.length.tolist(), jumps.renoise.tolist()
    ([1.0, 0.5], [0.5, 1.0])
    """
    t = uniform_jumps(steps).t
    return Jumps(t, 1 - t, 1 - t, np.append(t[1:], np.float32(1)))


def image_keys(seed: int | Integer[Array, ""], indices: Integer[Array, " batch"]) -> Key[Array, " batch"]:
    """One random key per image: a function of (seed, i) alone, whatever the image is batched with."""
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def noise(
    seed: int | Integer[Array, ""], indices: Integer[Array, " batch"], shape: tuple[int, ...]
) -> Float[Array, "batch ..."]:
    """Standard normal noise; that of image i depends on (seed, i) alone, whatever it is batched with."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(image_keys(seed, indices))


def fresh_noise(
    keys: Key[Array, " batch"], number: Int[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "batch ..."]:
    """Standard normal noise to follow the first of `noise`, from the same `image_keys`: number 1, 2, ..."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)


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
    keys: Key[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch ..."], Float[Array, "steps batch ..."]]:
    """Follow the jumps from `start`, noise at t=0; return the samples and the point after each jump.

    `keys`, from `image_keys`, make the fresh noise of jumps that are noised back; no others need them.
    """
    jump = make_jump(velocity, label, jumps, keys)

    def step(x: Array, index: Array) -> tuple[Array, Array]:
        x = jump(index, x)
        return x, x

    return lax.scan(step, start, jnp.arange(len(jumps.t)))


def sample(
    velocity: Callable[[Array, Array, Array, Array], Array],
    start: Float[Array, "batch ..."],
    label: Int[Array, " batch"],
    jumps: Jumps,
    keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch ..."]:
    """Follow the jumps from `start`, noise at t=0, to samples at t=1, one network call a jump."""
    # Under jit the unused path is never stored.
    return sample_path(velocity, start, label, jumps, keys)[0]


def sample_any(
    velocity: Callable[[Array, Array, Array, Array], Array],
    start: Float[Array, "batch ..."],
    label: Int[Array, " batch"],
    jumps: Jumps,
    count: Int[Array, ""],
    keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch ..."]:
    """`sample` along the first `count` jumps, a traced number: one compiled program for every budget.

    The jumps may be traced too, see `pad`. Cannot be differentiated backwards, as `sample` can.
    """
    return lax.fori_loop(0, count, make_jump(velocity, label, jumps, keys), start)


def pad(jumps: Jumps) -> Jumps:
    """Fill up to 128 jumps, or the next power of two, with some that are never taken."""
    size = max(128, 1 << (len(jumps.t) - 1).bit_length())
    return Jumps(*(np.pad(a, (0, size - len(a))) for a in jumps))


def make_jump(
    velocity: Callable[[Array, Array, Array, Array], Array],
    label: Int[Array, " batch"],
    jumps: Jumps,
    keys: Key[Array, " batch"] | None,
) -> Callable[[Array, Array], Array]:
    """The function (index, x) -> x of one jump. Raises InputError if it is noised back without keys."""
    if keys is None and isinstance(jumps.renoise, np.ndarray) and np.any(jumps.renoise < 1):
        raise InputError("these jumps are noised back, so sampling them needs `keys`: see sampling.image_keys.")
    table = jax.tree.map(jnp.asarray, jumps)

    def jump(index: Array, x: Array) -> Array:
        t, length, d, back = (row[index] for row in table)
        x = x + length * velocity(x, jnp.full(x.shape[:1], t), jnp.full(x.shape[:1], d), label)
        if keys is None:
            return x
        return jnp.where(back < 1, back * x + (1 - back) * fresh_noise(keys, index + 1, x.shape[1:]), x)

    return jump
