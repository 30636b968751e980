from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.sampling import (
    Jumps,
    dyadic_jumps,
    euler_jumps,
    guided,
    image_keys,
    noise,
    pad,
    renoising_jumps,
    sample,
    sample_any,
    sample_path,
    uniform_jumps,
)


def assert_covers(jumps: Jumps, steps: int) -> None:
    """Exactly `steps` float32 jumps, each from where the last one ended, from 0 to 1."""
    assert all(a.shape == (steps,) and a.dtype == np.float32 for a in jumps)
    ends = np.cumsum(jumps.length.astype(np.float64))
    np.testing.assert_allclose(jumps.t, np.concatenate([[0], ends[:-1]]), atol=1e-6)
    np.testing.assert_allclose(ends[-1], 1, atol=1e-6)


@pytest.mark.parametrize("steps", range(1, 201))
def test_dyadic_jumps_are_trained_jumps_for_every_budget(steps: int) -> None:
    jumps = dyadic_jumps(steps)
    assert_covers(jumps, steps)
    if steps > 128:
        np.testing.assert_array_equal(jumps.length, np.float32(1 / steps))
        np.testing.assert_array_equal(jumps.d, 0)
        return
    sections = 1 / jumps.length.astype(np.float64)
    assert set(sections) <= {2.0**level for level in range(8)}
    # Exactly, not about: powers of two and their multiples have no rounding.
    assert (jumps.t * sections % 1 == 0).all()
    assert jumps.length.astype(np.float64).sum() == 1
    # As even as it can be, the longer ones first.
    assert sections.max() <= 2 * sections.min()
    assert (np.diff(jumps.length) <= 0).all()
    np.testing.assert_array_equal(jumps.d, np.where(sections == 128, 0, jumps.length))


def test_three_dyadic_jumps_are_a_half_and_two_quarters() -> None:
    jumps = dyadic_jumps(3)
    np.testing.assert_array_equal(jumps.t, [0, 0.5, 0.75])
    np.testing.assert_array_equal(jumps.length, [0.5, 0.25, 0.25])
    np.testing.assert_array_equal(jumps.d, [0.5, 0.25, 0.25])


def test_the_finest_dyadic_jump_follows_the_levels() -> None:
    np.testing.assert_array_equal(dyadic_jumps(8, 8).d, 0)
    np.testing.assert_array_equal(dyadic_jumps(7, 8).d, [0.25, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(dyadic_jumps(9, 8).length, np.float32(1 / 9))


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 128])
def test_uniform_and_euler_jumps_are_even_and_differ_in_what_the_network_is_told(steps: int) -> None:
    uniform, euler = uniform_jumps(steps), euler_jumps(steps)
    assert_covers(uniform, steps)
    np.testing.assert_array_equal(uniform.length, np.float32(1 / steps))
    np.testing.assert_array_equal(uniform.d, uniform.length)
    np.testing.assert_array_equal(euler.t, uniform.t)
    np.testing.assert_array_equal(euler.length, uniform.length)
    np.testing.assert_array_equal(euler.d, 0)


def test_renoising_jumps_go_to_the_end_and_back_to_the_even_grid() -> None:
    jumps = renoising_jumps(4)
    np.testing.assert_array_equal(jumps.t, [0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(jumps.length, [1, 0.75, 0.5, 0.25])
    np.testing.assert_array_equal(jumps.d, jumps.length)
    np.testing.assert_array_equal(jumps.renoise, [0.25, 0.5, 0.75, 1])
    for plain in (dyadic_jumps(5), uniform_jumps(3), euler_jumps(200)):
        np.testing.assert_array_equal(plain.renoise, 1)


@pytest.mark.parametrize("jumps", [uniform_jumps, euler_jumps, dyadic_jumps, renoising_jumps])
@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_step_is_refused(jumps: Callable[[int], Jumps], steps: int) -> None:
    with pytest.raises(InputError, match=f"steps is {steps}, but sampling takes at least 1 step"):
        jumps(steps)


def test_noise_of_an_image_depends_on_the_seed_and_its_index_alone() -> None:
    together = np.asarray(noise(3, jnp.arange(6), (4, 2)))
    np.testing.assert_array_equal(noise(3, jnp.array([5, 2]), (4, 2)), together[[5, 2]])
    assert np.abs(noise(4, jnp.arange(6), (4, 2)) - together).min(axis=(1, 2)).max() > 0
    for a in range(6):
        for b in range(a):
            assert np.abs(together[a] - together[b]).max() > 0.1


def test_noise_is_standard_normal() -> None:
    drawn = np.sort(np.asarray(noise(0, jnp.arange(64), (16, 16))).ravel())
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / drawn.size)
    # Not just any mean 0 and variance 1: 68.27 % within one deviation.
    assert abs((np.abs(drawn) < 1).mean() - 0.6827) < 5 * np.sqrt(0.22 / drawn.size)


def velocity(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
    per_example = t + 2 * d + 0.1 * label.astype(jnp.float32)
    return 0.5 * x + per_example[:, None]


class Recorded:
    """A velocity that keeps the inputs of its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[jax.Array, ...]] = []

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        self.calls.append(inputs)
        return velocity(*inputs)


X, T, D, LABEL = jnp.array([[1.0, 2.0], [3.0, -1.0]]), jnp.array([0.0, 0.5]), jnp.array([0.5, 0.25]), jnp.array([1, 4])


def test_guidance_1_is_one_plain_call_of_the_batch() -> None:
    recorded = Recorded()
    np.testing.assert_array_equal(guided(recorded, 1.0, 9)(X, T, D, LABEL), velocity(X, T, D, LABEL))
    assert [call[0].shape for call in recorded.calls] == [(2, 2)]
    # Neither does it need a null label.
    np.testing.assert_array_equal(guided(recorded, 1.0, None)(X, T, D, LABEL), velocity(X, T, D, LABEL))


@pytest.mark.parametrize("guidance", [0.0, 1.5, 4.0])
def test_guidance_goes_from_the_unlabelled_through_the_labelled_velocity_in_one_call(guidance: float) -> None:
    recorded = Recorded()
    found = guided(recorded, guidance, 9)(X, T, D, LABEL)
    labelled, unlabelled = velocity(X, T, D, LABEL), velocity(X, T, D, jnp.array([9, 9]))
    np.testing.assert_allclose(found, unlabelled + guidance * (labelled - unlabelled), rtol=1e-6)
    assert len(recorded.calls) == 1
    for given, expected in zip(recorded.calls[0], (X, T, D), strict=False):
        np.testing.assert_array_equal(given, jnp.concatenate([expected, expected]))
    assert sorted(recorded.calls[0][3].tolist()) == [1, 4, 9, 9]


def test_guidance_without_a_null_label_is_refused() -> None:
    with pytest.raises(InputError, match=r"guidance 2.0 needs a network with a null label"):
        guided(velocity, 2.0, None)


@pytest.mark.parametrize("jumps", [dyadic_jumps(5, 4), dyadic_jumps(7), uniform_jumps(3)], ids=["euler", "dyadic", "3"])
def test_sampling_follows_the_jumps_one_by_one(jumps: Jumps) -> None:
    end, path = sample_path(velocity, X, LABEL, jumps)
    assert path.shape == (len(jumps.t), *X.shape)
    for row in range(2):
        x = np.asarray(X[row], np.float64)
        for i, (t, length, d) in enumerate(zip(*jumps[:3], strict=True)):
            x = x + length * (0.5 * x + t + 2 * d + 0.1 * int(LABEL[row]))
            np.testing.assert_allclose(path[i, row], x, rtol=1e-5)
    np.testing.assert_array_equal(end, path[-1])
    np.testing.assert_array_equal(sample(velocity, X, LABEL, jumps), end)


def test_the_noise_that_a_sample_goes_back_to_is_new_at_every_jump_and_its_own() -> None:
    jumps, keys = renoising_jumps(3), image_keys(5, jnp.array([7, 2]))
    end, path = sample_path(velocity, X, LABEL, jumps, keys)
    x, fresh = X, []
    for i, (t, length, d, back) in enumerate(zip(*jumps, strict=True)):
        x = x + length * velocity(x, jnp.full(2, t), jnp.full(2, d), LABEL)
        if back < 1:
            fresh.append((np.asarray(path[i]) - back * np.asarray(x)) / (1 - back))
            x = path[i]
    np.testing.assert_allclose(end, x, rtol=1e-6)
    assert len(fresh) == 2
    drawn = [*fresh[0].ravel(), *fresh[1].ravel(), *np.asarray(noise(5, jnp.array([7, 2]), (2,))).ravel()]
    assert np.abs(drawn).max() < 5
    assert np.abs(np.subtract.outer(drawn, drawn) + 9 * np.eye(len(drawn))).min() > 1e-3  # No two alike.
    # It depends on the seed and the image alone, not on what it is batched with.
    alone = sample(velocity, X[1:], LABEL[1:], jumps, image_keys(5, jnp.array([2])))
    np.testing.assert_allclose(alone, end[1:], rtol=1e-6)
    with pytest.raises(InputError, match="noised back, so sampling them needs `keys`"):
        sample(velocity, X, LABEL, jumps)


@pytest.mark.parametrize("jumps", [dyadic_jumps(5), renoising_jumps(3), euler_jumps(130)], ids=["5", "renoised", "130"])
def test_one_program_for_all_budgets_takes_the_same_jumps(jumps: Jumps) -> None:
    padded, keys = pad(jumps), image_keys(5, jnp.array([7, 2]))
    assert {len(a) for a in padded} == {128 if len(jumps.t) < 128 else 256}
    run = jax.jit(lambda jumps, count: sample_any(velocity, X, LABEL, jumps, count, keys))
    found = run(padded, np.int32(len(jumps.t)))
    np.testing.assert_allclose(found, sample(velocity, X, LABEL, jumps, keys), rtol=1e-5)
