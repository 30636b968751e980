"""Averages of the weights: how they start, what they keep of the beginning, and where they start again."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.config import Config
from shortcut_models.data.points import Points
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives import Batch
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut
from shortcut_models.state import (
    State,
    average,
    decay_at,
    enter_stage,
    has_own_target,
    init_state,
    read_totals,
    stage_starts,
)
from shortcut_models.train import make_step


@pytest.fixture(scope="module")
def points(tiny: Config) -> Config:
    network = MLP(dimensions=2, hidden_size=4, depth=1, num_classes=4, frequencies=2)
    return replace(tiny, data=Points(), model=network, objective=FlowMatching(), max_steps=1000, ema_decay=0.999)


def decays(config: Config, decay: float, steps: int) -> np.ndarray:
    rule = jax.jit(jax.vmap(partial(decay_at, config, decay)))
    return np.asarray(rule(jnp.arange(steps, dtype=jnp.uint32)), np.float64)


def test_a_growing_average_keeps_no_trace_of_the_initial_weights(points: Config) -> None:
    left = np.cumprod(decays(points, 0.999, 2000))  # Share of the initial weights after each step.
    # The product of (1 + k) / (10 + k) telescopes to 9! n! / (n + 9)!.
    for steps in (1, 2, 10, 100):
        telescoped = np.prod([i / (steps + i) for i in range(1, 10)])
        np.testing.assert_allclose(left[steps - 1], telescoped, rtol=1e-4)
    assert left[99] < 1e-12
    assert left[1999] < 1e-12


def test_a_growing_decay_ends_at_its_value(points: Config) -> None:
    found = decays(points, 0.9, 200)
    np.testing.assert_allclose(found, np.minimum(0.9, (1 + np.arange(200)) / (10 + np.arange(200))), rtol=1e-6)
    # (1 + k) / (10 + k) reaches 0.9 at k = 80.
    assert found[79] < 0.9
    np.testing.assert_allclose(found[80:], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(decays(points, 0.0, 3), 0)


def test_a_constant_decay_keeps_its_power_of_the_initial_weights(points: Config) -> None:
    config = replace(points, objective=FlowMatching(averaging="constant"))
    assert [decay_at(config, 0.999, jnp.uint32(k)) for k in (0, 5, 2000)] == [0.999] * 3
    params, start = {"a": jnp.ones(1)}, {"a": jnp.zeros(1)}
    for k in range(8):
        start = average(start, params, decay_at(config, 0.75, jnp.uint32(k)))
    np.testing.assert_allclose(1 - start["a"], 0.75**8, rtol=1e-5)
    assert ORIGINAL.averaging == "constant"
    assert Shortcut().averaging == "growing"


def test_the_average_starts_again_at_each_stage_that_is_a_training_of_its_own(points: Config) -> None:
    # Stages over 160 images start at 54 and 107: before steps 4 and 7 of 16 images.
    objective = Progressive(total_images=160, levels=8)
    config = replace(points, objective=objective, max_steps=10, start_from="flow")
    assert objective.restarts
    assert stage_starts(config) == (4, 7)
    k = np.array([0, 1, 2, 3, 0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(decays(config, 0.999, 10), (1 + k) / (10 + k), rtol=1e-6)
    # One that starts exactly at a batch's edge.
    edge = replace(config, objective=replace(objective, total_images=96), max_steps=6)
    assert stage_starts(edge) == (2, 4)
    np.testing.assert_allclose(decays(edge, 0.999, 6), np.array([0.1, 2 / 11] * 3), rtol=1e-6)


def test_stages_that_only_change_the_targets_do_not_start_it_again(points: Config) -> None:
    config = replace(points, objective=Consistency(total_images=160, levels=8), max_steps=10)
    assert config.objective.num_stages == 3
    assert not config.objective.restarts
    assert stage_starts(config) == ()
    k = np.arange(10)
    np.testing.assert_allclose(decays(config, 0.999, 10), (1 + k) / (10 + k), rtol=1e-6)


def test_stages_that_restart_are_those_that_take_a_new_teacher() -> None:
    for objective in (Progressive(total_images=100), Consistency(total_images=100), FlowMatching(), Shortcut()):
        assert objective.restarts == bool(objective.snapshots)


@pytest.mark.parametrize(("weights", "place"), [("ema", "ema"), ("raw", "params")])
def test_the_teacher_of_a_stage_is_the_average_or_the_weights_themselves(
    points: Config, weights: Any, place: str
) -> None:
    objective = Progressive(total_images=160, levels=8, teacher_weights=weights)
    config = replace(points, objective=objective, max_steps=10, start_from="flow")
    params, ema = (config.model.init(jax.random.key(i)) for i in (1, 2))
    state = init_state(config)._replace(params=params, ema=ema)
    before, starts = state.teacher, stage_starts(config)
    for index in range(10):
        after = enter_stage(config, state, index).teacher
        expected = getattr(state, place) if index in starts else before
        jax.tree.map(np.testing.assert_array_equal, after, expected)


@pytest.mark.parametrize("averaging", ["growing", "constant"])
def test_both_averages_of_a_step_follow_their_own_decay(points: Config, averaging: Any) -> None:
    config = replace(points, ema_decay=0.75, objective=Shortcut(target_decay=0.5, averaging=averaging))
    ema, target = (config.model.init(jax.random.key(i)) for i in (1, 2))
    state = init_state(config)._replace(ema=ema, target=target, totals={})
    x1, label = jax.random.normal(jax.random.key(3), (16, 2)), jnp.arange(16) % 4
    for index, grown in ((2, 3 / 12), (20, 21 / 30)):
        after: State = jax.jit(make_step(config))(state, Batch(x1, label), jnp.uint32(index))
        for found, old, most in ((after.ema, ema, 0.75), (after.target, target, 0.5)):
            k = min(most, grown) if averaging == "growing" else most
            expected = jax.tree.map(lambda a, b, k=k: k * np.asarray(a) + (1 - k) * np.asarray(b), old, after.params)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), found, expected)


def test_an_average_is_taken_leaf_by_leaf() -> None:
    found = average({"a": jnp.asarray([1.0, 2.0])}, {"a": jnp.asarray([5.0, -2.0])}, 0.75)
    np.testing.assert_array_equal(found["a"], [2.0, 1.0])


def test_a_target_has_an_average_of_its_own_only_where_it_differs_from_the_one_for_sampling(points: Config) -> None:
    own = {None: False, 0.999: False, 0.95: True}
    for decay, expected in own.items():
        config = replace(points, objective=Shortcut(target_decay=decay))
        assert has_own_target(config) == expected
        assert (init_state(config).target is not None) == expected
    assert not has_own_target(points)


def test_a_metric_that_nothing_fell_under_is_left_out() -> None:
    totals = {"loss": jnp.asarray([6.0, 4.0]), "error/d=1": jnp.zeros(2)}
    assert read_totals(totals, ["loss", "error/d=1"]) == {"loss": 1.5}
