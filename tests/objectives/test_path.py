import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.objectives.base import check_fraction
from shortcut_models.objectives.path import (
    Times,
    adaptive_weight,
    broadcast,
    drop_labels,
    interpolate,
    join_batch,
    split_batch,
    squared_error,
)

COUNT = 20_000
RNG = np.random.default_rng(0)


def test_grid_times_are_every_multiple_below_1_equally_often() -> None:
    drawn = np.asarray(Times(kind="grid", grid=8).draw(jax.random.key(0), COUNT))
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(8) / 8)
    assert np.abs(counts - COUNT / 8).max() < 5 * math.sqrt(COUNT * 7 / 64)


@pytest.mark.parametrize(
    ("times", "distribution"),
    [
        (Times(kind="uniform"), lambda t: t),
        (Times(), lambda t: 0.5 * (1 + math.erf((math.log(t / (1 - t)) - 0.4) / math.sqrt(2)))),
        (Times(mean=-1, std=2.0), lambda t: 0.5 * (1 + math.erf((math.log(t / (1 - t)) + 1) / 2 / math.sqrt(2)))),
    ],
    ids=["uniform", "logit-normal", "wide"],
)
def test_continuous_times_have_their_distribution(times: Times, distribution: Any) -> None:
    drawn = np.sort(np.asarray(times.draw(jax.random.key(0), COUNT), np.float64))
    assert drawn[0] >= 0
    assert drawn[-1] < 1
    # Kolmogorov-Smirnov; the bound is passed by chance once in ten thousand.
    expected = np.array([distribution(t) for t in np.clip(drawn, 1e-9, None)])
    assert np.abs(expected - (np.arange(COUNT) + 0.5) / COUNT).max() < 2.2 / math.sqrt(COUNT)


def test_the_path_runs_from_noise_to_data_and_the_velocity_is_its_derivative() -> None:
    x0, x1 = RNG.standard_normal((2, 5, 2, 3)).astype(np.float32)
    t = np.array([0, 0.25, 0.5, 0.9, 1], np.float32)
    for floor in (0.0, 0.1):
        x, v = interpolate(jnp.asarray(x0), jnp.asarray(x1), jnp.asarray(t), floor)
        for i in range(5):
            np.testing.assert_allclose(x[i], (1 - (1 - floor) * t[i]) * x0[i] + t[i] * x1[i], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(v[i], x1[i] - (1 - floor) * x0[i], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(x[0], x0[0])
        np.testing.assert_allclose(x[4], x1[4] + floor * x0[4], rtol=1e-5, atol=1e-6)


def test_errors_are_means_over_each_example_alone() -> None:
    a, b = RNG.standard_normal((2, 3, 2, 4)).astype(np.float32)
    expected = [
        sum((float(p) - float(q)) ** 2 for p, q in zip(a[i].ravel(), b[i].ravel(), strict=True)) / 8 for i in range(3)
    ]
    np.testing.assert_allclose(squared_error(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-5)
    assert broadcast(jnp.zeros(3), jnp.asarray(a)).shape == (3, 1, 1)


def test_the_adaptive_weight_is_a_power_without_gradient() -> None:
    error = jnp.array([0.0, 0.5, 3.0])
    expected = [1 / (e + 0.25) ** 0.7 for e in (0.0, 0.5, 3.0)]
    np.testing.assert_allclose(adaptive_weight(error, 0.7, 0.25), expected, rtol=1e-6)
    np.testing.assert_array_equal(adaptive_weight(error, 0.0, 0.25), 1)
    gradient = jax.grad(lambda e: jnp.sum(adaptive_weight(e, 0.7, 0.25) * e))(error)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_labels_are_dropped_at_the_rate_and_left_alone_otherwise() -> None:
    label = jnp.asarray(RNG.integers(0, 5, COUNT), jnp.int32)
    kept, dropped = drop_labels(jax.random.key(0), label, 0.3, 5)
    assert abs(np.mean(dropped) - 0.3) < 5 * math.sqrt(0.21 / COUNT)
    np.testing.assert_array_equal(kept, np.where(dropped, 5, label))
    assert np.all(drop_labels(jax.random.key(0), label, 1.0, 5)[0] == 5)
    same, none = drop_labels(jax.random.key(0), label, 0.0, None)
    assert same is label
    assert not none.any()
    with pytest.raises(InputError, match=r"label_dropout is 0\.3, so a null_label is needed"):
        drop_labels(jax.random.key(0), label, 0.3, None)


def test_joining_undoes_splitting_for_every_size() -> None:
    # One program for all sizes: a hundred small ones would each be compiled.
    sizes = [
        (batch, first) for batch in (*range(2, 13), 64) for first in range(1, batch) if batch < 13 or first % 9 == 8
    ]

    @jax.jit
    def run() -> list[tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
        out = []
        for batch, first in sizes:
            x = 2 * jnp.arange(batch, dtype=jnp.float32)[:, None] + jnp.arange(2, dtype=jnp.float32)[None]
            head, tail = split_batch(x, first)
            out.append((x, head, tail, join_batch(head, tail)))
        return out

    for (batch, first), (x, head, tail, joined) in zip(sizes, run(), strict=True):
        assert (len(head), len(tail)) == (first, batch - first)
        np.testing.assert_array_equal(joined, x)
        # Nothing twice, nothing left out.
        np.testing.assert_array_equal(np.sort(np.concatenate([head, tail]), axis=0), x)
        # Every device of those that divide both parts finds its share of the head in its own rows.
        for devices in range(1, batch + 1):
            if batch % devices == first % devices == 0:
                own = np.asarray(head)[:, 0].reshape(devices, -1) // 2 // (batch // devices)
                assert (own == np.arange(devices)[:, None]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": 0}, "objective.times.grid is 0, but must be at least 1"),
        ({"std": 0.0}, "times.std is 0.0"),
        ({"std": -1.0}, "times.std is -1.0"),
        ({"mean": math.nan}, "times.mean is nan"),
    ],
)
def test_impossible_times_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Times(**arguments)


def test_fractions_are_checked_at_their_ends() -> None:
    for value in (0.0, 0.5, 1.0):
        check_fraction("share", value)
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match=r"share is .*, but must lie between 0 and 1"):
            check_fraction("share", value)
