"""AdamW by its formula, what decays, and how the learning rate goes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shortcut_models import InputError
from shortcut_models.config import Config
from shortcut_models.networks import Params
from shortcut_models.optimizer import Optimizer, make_optimizer, make_schedule


def updates_of(settings: Optimizer, gradients: list[float]) -> list[float]:
    """What the optimiser adds to a parameter at 1, given its gradients in turn."""
    optimizer: Any = make_optimizer(settings)
    params, found = {"kernel": jnp.ones(1)}, []
    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for gradient in gradients:
            update, state = optimizer.update({"kernel": jnp.full(1, gradient)}, state, params)
            found.append(float(update["kernel"][0]))
    return found


def test_both_decays_of_adam_act_as_its_formula_says() -> None:
    for beta1, beta2 in ((0.9, 0.999), (0.5, 0.75)):
        m = v = 0.0
        gradients, expected = [3.0, -1.0, 0.5], []
        for k, g in enumerate(gradients, start=1):
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            expected.append(-0.25 * (m / (1 - beta1**k)) / (math.sqrt(v / (1 - beta2**k)) + 1e-8))
        found = updates_of(Optimizer(learning_rate=0.25, beta1=beta1, beta2=beta2), gradients)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("decayed", ["kernels", "all"])
def test_weight_decay_shrinks_matrices_or_everything(tiny: Config, decayed: Any) -> None:
    optimizer = make_optimizer(Optimizer(learning_rate=0.5, weight_decay=0.25, decayed=decayed))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(tiny.model.init, jax.random.key(0)))

    @jax.jit
    def update(params: Params) -> Any:
        return optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)[0]

    with jax.numpy_dtype_promotion("standard"):
        updates = update(params)
    kinds = set()
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        kind = path[-1].key
        shrinks = decayed == "all" or kind == "kernel"
        np.testing.assert_array_equal(update, np.full(update.shape, -0.125 if shrinks else 0.0))
        kinds.add(kind)
    assert kinds == {"kernel", "bias", "table"}


def test_clipping_bounds_the_gradient_that_the_optimiser_sees() -> None:
    params = {"kernel": jnp.zeros(4)}
    optimizer = make_optimizer(Optimizer(clip_norm=0.5, learning_rate=1.0))
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update({"kernel": jnp.full(4, 3.0)}, optimizer.init(params), params)
    np.testing.assert_allclose(optax.tree.get(state, "mu")["kernel"], np.full(4, 0.1 * 0.25), rtol=1e-6)


def test_the_learning_rate_rises_then_stays() -> None:
    schedule = make_schedule(Optimizer(learning_rate=2.0, warmup_steps=4))
    np.testing.assert_allclose(schedule(jnp.arange(7)), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0], rtol=1e-6)
    assert [float(jnp.asarray(make_schedule(Optimizer(learning_rate=2.0))(i))) for i in range(3)] == [2.0] * 3
    one = make_schedule(Optimizer(learning_rate=2.0, warmup_steps=1))
    assert [float(jnp.asarray(one(i))) for i in range(3)] == [2.0] * 3


def test_the_learning_rate_rises_then_falls_along_a_cosine_to_zero() -> None:
    schedule = make_schedule(Optimizer(learning_rate=2.0, warmup_steps=2, schedule="cosine", decay_steps=10))
    expected = [1.0, 2.0, *(1 + math.cos(math.pi * k / 8) for k in range(9)), 0.0]
    np.testing.assert_allclose(schedule(jnp.arange(12)), expected, atol=1e-6)


def test_every_cycle_falls_from_the_peak_and_the_last_ends_at_zero() -> None:
    settings = Optimizer(learning_rate=2.0, warmup_steps=2, schedule="cosine", decay_steps=10, cycles=2)
    cycle = [1 + math.cos(math.pi * k / 4) for k in range(4)]
    found = [float(jnp.asarray(make_schedule(settings)(i))) for i in range(13)]
    np.testing.assert_allclose(found, [1.0, 2.0, *cycle, *cycle, 0.0, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": -1.0}, "optimizer.learning_rate is -1.0, but must be above 0"),
        ({"learning_rate": math.nan}, "optimizer.learning_rate is nan, but must be a finite number"),
        ({"weight_decay": math.inf}, "optimizer.weight_decay is inf, but must be a finite number"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay is -0.1, but must be at least 0"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps is -1"),
        ({"decay_steps": -1}, "optimizer.decay_steps is -1"),
        ({"cycles": 0}, "optimizer.cycles is 0, but must be at least 1"),
        ({"clip_norm": -0.5}, "optimizer.clip_norm is -0.5"),
        ({"beta1": -0.1}, "optimizer.beta1 is -0.1, but must be at least 0 and below 1"),
        ({"beta2": 1.0}, "optimizer.beta2 is 1.0, but must be at least 0 and below 1"),
        (
            {"schedule": "cosine", "decay_steps": 10, "warmup_steps": 1, "cycles": 10},
            "cycles is 10, but .* 9 follow",
        ),
        ({"schedule": "cosine", "decay_steps": 5, "warmup_steps": 5}, "the cosine must end after the warm-up's 5"),
    ],
)
def test_an_optimiser_that_cannot_work_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Optimizer(**settings)
