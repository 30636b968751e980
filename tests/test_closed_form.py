"""The oracle: data from a Gaussian, whose velocity field and flow map are known exactly.

Data N(mu, diag(s^2)) and noise N(0, I) give x_t ~ N(t mu, diag(q)) with q(t) = (1-t)^2 + t^2 s^2, and
the flow carries x to X(x, t, d) = (t+d) mu + sqrt(q(t+d) / q(t)) (x - t mu).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.objectives import Batch, Context, Loss, Objective, Times
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.live_reflow import LiveReflow
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.reflow import Reflow
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.sampling import (
    Jumps,
    dyadic_jumps,
    euler_jumps,
    image_keys,
    renoising_jumps,
    sample,
    uniform_jumps,
)

MU, S = jnp.array([[1.5, -0.5, 0.0]]), jnp.array([[0.5, 1.0, 1.6]])


def variance(t: jax.Array) -> jax.Array:
    return (1 - t) ** 2 + t**2 * S**2


def exact(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
    """Mean velocity (X(x, t, d) - x) / d over a jump; at d=0 its limit, E[x1 - x0 | x_t = x].

    The difference of the roots of q, divided by d, is written so that nothing cancels: that is what
    makes rounding the only error.
    """
    del label
    t, d = t[:, None], d[:, None]
    here, there = jnp.sqrt(variance(t)), jnp.sqrt(variance(t + d))
    return MU + (x - t * MU) * ((2 * t + d) * (1 + S**2) - 2) / (here * (here + there))


def draw(key: jax.Array, count: int) -> jax.Array:
    return MU + S * jax.random.normal(key, (count, 3))


def test_the_oracle_is_the_flow_map_and_the_conditional_expectation() -> None:
    rng = np.random.default_rng(0)
    x, t, d = rng.standard_normal((64, 3), np.float32), rng.uniform(0, 0.5, 64), rng.uniform(0.1, 0.5, 64)
    t, d, label = t.astype(np.float32), d.astype(np.float32), np.zeros(64, np.int32)
    mu, s = np.asarray(MU, np.float64), np.asarray(S, np.float64)
    a, b = t[:, None].astype(np.float64), (t + d)[:, None].astype(np.float64)
    here, there = ((1 - u) ** 2 + u**2 * s**2 for u in (a, b))
    landed = b * mu + np.sqrt(there / here) * (x - a * mu)
    jumped = jax.jit(exact)
    found = x + d[:, None] * np.asarray(jumped(x, t, d, label))
    np.testing.assert_allclose(found, landed, rtol=1e-5, atol=1e-6)
    # Regression of x1 - x0 on x_t: covariance t s^2 - (1 - t) over variance.
    expected = mu + (a * s**2 - (1 - a)) / here * (x - a * mu)
    np.testing.assert_allclose(jumped(x, t, np.zeros_like(d), label), expected, rtol=1e-5, atol=1e-5)


def errors(
    objective: Objective, network: Any, batch: int = 4096, images: int = 0
) -> dict[str, tuple[float, float, int]]:
    """Mean and largest raw error of every bucket with examples, and their number."""

    @jax.jit
    def run(key: jax.Array) -> Loss:
        data_key, key = jax.random.split(key)
        label = jnp.zeros(batch, int)
        return objective(network, Batch(draw(data_key, batch), label), key, Context(teacher=exact, images=images))

    found = {}
    for name, metric in run(jax.random.key(0)).metrics.items():
        inside = np.asarray(metric.value)[np.asarray(metric.weight) > 0]
        if inside.size:
            found[name] = (float(inside.mean()), float(inside.max()), inside.size)
    return found


def test_the_exact_flow_map_has_no_residual_at_any_dyadic_jump() -> None:
    levels = 32
    shortcut = Shortcut(share=0.9, levels=levels, label_dropout=0.0, target_decay=None)
    found = errors(shortcut, exact)
    longer = {"error/d=1/8", "error/d=1/4", "error/d=1/2", "error/d=1"}
    assert set(found) == {"error/d=0", "error/d=1/16", *longer}
    for name in longer:
        assert found[name][2] > 500
        assert found[name][1] < 1e-9
    # The finest jump is built of two Euler hops, of which each is told d=0: right to first order only.
    assert 1e-4 < found["error/d=1/16"][0] < 1e-2
    # And another network has a residual: the velocity at the start of a jump is not its mean.
    wrong = errors(shortcut, lambda x, t, d, label: exact(x, t, 0 * d, label))
    for name in longer:
        assert wrong[name][0] > 1e-4


def test_the_finest_dyadic_jump_is_wrong_by_the_square_of_its_length() -> None:
    # The squared error of a first-order rule: half the length, a quarter of the error.
    means = [
        errors(Shortcut(share=0.9, levels=levels, label_dropout=0.0, target_decay=None), exact)[name][0]
        for levels, name in ((32, "error/d=1/16"), (128, "error/d=1/64"))
    ]
    assert 12 < means[0] / means[1] < 20


def test_the_exact_flow_map_has_no_residual_at_any_continuous_jump() -> None:
    shortcut = Shortcut(share=0.9, step_sizes="continuous", split="random", label_dropout=0.0, target_decay=None)
    found = errors(shortcut, exact)
    assert len(found) == 8
    for name in set(found) - {"error/d=0"}:
        assert found[name][2] > 300
        assert found[name][1] < 1e-9


@pytest.mark.slow
def test_the_exact_flow_map_has_no_residual_in_progressive_distillation() -> None:
    objective = Progressive(total_images=500, levels=32, label_dropout=0.0)
    for stage, name in enumerate(["1/16", "1/8", "1/4", "1/2", "1"]):
        found = errors(objective, exact, images=100 * stage)
        assert list(found) == [f"error/d={name}"]
        mean, largest, _ = found[f"error/d={name}"]
        # The first stage is built of two Euler steps: right to first order only.
        assert 1e-4 < mean < 1e-2 if stage == 0 else largest < 1e-9
        wrong = errors(objective, lambda x, t, d, label: exact(x, t, 0 * d, label), images=100 * stage)
        assert wrong[f"error/d={name}"][0] > 1e-4


def test_the_exact_flow_map_is_what_consistency_distillation_tends_to() -> None:
    # The teacher's step is wrong by the square of its length, so the squared error falls by its fourth power.
    means = [
        errors(ConsistencyDistillation(levels=levels, label_dropout=0.0), exact)["error/d<=1"][0] for levels in (16, 32)
    ]
    assert 12 < means[0] / means[1] < 20
    found = errors(ConsistencyDistillation(label_dropout=0.0), exact)
    assert len(found) == 7
    assert found["error/d<=1"][0] < 1e-7
    wrong = errors(ConsistencyDistillation(label_dropout=0.0), lambda x, t, d, label: exact(x, t, 0 * d, label))
    assert wrong["error/d<=1"][0] > 1e-4


def test_the_exact_flow_map_is_where_the_gradient_of_consistency_training_vanishes() -> None:
    # Its targets are noisy; what they are on average shows in the gradient of networks near the exact one.
    levels, batch = 256, 100_000
    objective = Consistency(total_images=800, levels=levels, label_dropout=0.0, adaptive_power=0.0)

    @jax.jit
    def gradient(images: jax.Array) -> jax.Array:
        data_key, key = jax.random.split(jax.random.key(0))
        x1, label = draw(data_key, batch), jnp.zeros(batch, int)

        def loss(shift: jax.Array) -> jax.Array:
            moved = lambda x, t, d, label: exact(x, t, d, label) + shift[0] + shift[1] * (x - t[:, None] * MU)  # noqa: E731
            return objective(moved, Batch(x1, label), key, Context(target=exact, images=images)).per_example.mean()

        return jax.grad(loss)(jnp.zeros((2, 3)))

    coarse, middle, fine = (float(jnp.abs(gradient(jnp.uint32(100 * stage))).max()) for stage in (0, 3, 7))
    assert coarse > 0.1
    assert middle < coarse / 3
    assert fine < 0.02


def line(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
    """The velocity at d=0; at d=1 that of the straight line from a noise to where the flow takes it."""
    t = t[:, None]
    noise = (x - t * MU) / (1 - t + t * S)
    return jnp.where(d[:, None] == 0, exact(x, t[:, 0], 0 * d, label), MU + (S - 1) * noise)


def test_live_reflow_tends_to_the_lines_between_a_noise_and_where_the_flow_takes_it() -> None:
    means = [
        errors(LiveReflow(sampler_steps=steps, label_dropout=0.0, share=0.5), line)["error/d=1"][0]
        for steps in (16, 32)
    ]
    assert 3.3 < means[0] / means[1] < 4.8  # A first-order sampler, squared.
    assert means[1] < 4e-3
    assert errors(LiveReflow(label_dropout=0.0, share=0.5), exact)["error/d=1"][0] > 1e-2


def test_reflow_on_the_pairs_of_the_exact_flow_has_no_residual(starts: jax.Array) -> None:
    straight = lambda x, t, d, label: line(x, t, d + 1, label)  # noqa: E731
    pairs = Batch(MU + S * starts, jnp.zeros(16, int), starts)
    found = Reflow(label_dropout=0.0)(straight, pairs, jax.random.key(0), Context())
    assert float(found.per_example.max()) < 1e-9
    # And then Euler's method is exact in one step.
    one = sample(straight, starts, jnp.zeros(16, int), euler_jumps(1))
    np.testing.assert_allclose(one, MU + S * starts, atol=1e-6)


def test_samples_noised_back_have_the_distribution_of_the_data() -> None:
    count = 100_000
    keys = image_keys(0, jnp.arange(count))
    start = jax.random.normal(jax.random.key(1), (count, 3))
    found = jax.jit(lambda x: sample(exact, x, jnp.zeros(count, int), renoising_jumps(3), keys))(start)
    assert np.abs(found.mean(axis=0) - MU[0]).max() < 5 * float(S.max()) / count**0.5
    assert np.abs(found.std(axis=0) / S[0] - 1).max() < 5 / (2 * count) ** 0.5
    # They are other samples than those of one jump: the noise is new.
    assert abs(np.corrcoef(found[:, 0], start[:, 0])[0, 1]) < 0.9


@pytest.fixture(scope="module")
def starts() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((16, 3), np.float32))


@pytest.mark.parametrize(
    "jumps",
    [*map(uniform_jumps, (1, 3, 7, 128)), *map(dyadic_jumps, (1, 3, 7, 64))],
    ids=lambda jumps: f"{len(jumps.t)}-{'even' if np.ptp(jumps.length) == 0 else 'uneven'}",
)
def test_exact_jumps_give_the_same_sample_in_any_number_of_steps(jumps: Jumps, starts: jax.Array) -> None:
    found = jax.jit(lambda x: sample(exact, x, jnp.zeros(16, int), jumps))(starts)
    np.testing.assert_allclose(found, MU + S * starts, rtol=0, atol=2e-5)


def test_euler_steps_converge_to_it_at_first_order(starts: jax.Array) -> None:
    @jax.jit
    def run(x: jax.Array) -> list[jax.Array]:
        label = jnp.zeros(16, int)
        grids = (euler_jumps(32), euler_jumps(64), euler_jumps(128), dyadic_jumps(128))
        return [sample(exact, x, label, jumps) for jumps in grids]

    coarse, middle, fine, dyadic = (np.abs(found - (MU + S * starts)).max() for found in run(starts))
    assert fine > 1e-4
    assert 1.8 < coarse / middle < 2.2
    assert 1.8 < middle / fine < 2.2
    # 128 dyadic jumps are all told d=0: the same steps.
    assert dyadic == fine


@pytest.mark.parametrize("kind", ["uniform", "grid", "logit-normal"])
def test_flow_matching_reaches_its_floor_and_not_below(kind: Any) -> None:
    # Var(x1 - x0 | x_t) = s^2 / q(t): what even the best network cannot know.
    count = 40_000
    objective = FlowMatching(times=Times(kind=kind), label_dropout=0.0)

    @jax.jit
    def run(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        data_key, key = jax.random.split(key)
        x1, label = draw(data_key, count), jnp.zeros(count, int)
        times = []

        def best(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
            times.append(t)
            return exact(x, t, d, label)

        loss = objective(best, Batch(x1, label), key, Context()).per_example
        worse = objective(lambda *inputs: exact(*inputs) + 0.3, Batch(x1, label), key, Context()).per_example
        return loss, worse, times[0]

    loss, worse, t = (np.asarray(a, np.float64) for a in run(jax.random.key(0)))
    s = np.asarray(S, np.float64)
    floor = (s**2 / ((1 - t[:, None]) ** 2 + t[:, None] ** 2 * s**2)).mean(axis=1)
    for found, expected in ((loss, floor), (worse, floor + 0.3**2)):
        difference = found - expected
        assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(count)
    if kind == "uniform":  # The floor's integral over t is s pi / 2.
        assert abs(loss.mean() - s.mean() * np.pi / 2) < 4 * loss.std() / np.sqrt(count)
