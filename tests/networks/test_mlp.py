from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from shortcut_models.errors import InputError
from shortcut_models.networks import Params
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives import Batch, Context
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.sampling import noise, sample

SMALL = MLP(dimensions=3, hidden_size=16, depth=2, num_classes=2, frequencies=8)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 3), np.float32))
T, D, LABEL = jnp.array([0.0, 0.3, 0.5, 0.9]), jnp.array([0.0, 0.3, 0.25, 0.1]), jnp.array([0, 1, 2, 0])


@pytest.fixture(scope="module")
def params() -> Params:
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(0.5 * RNG.standard_normal(a.shape, np.float32)), shapes)


def test_the_velocity_is_shaped_like_the_points_and_depends_on_every_input(params: Params) -> None:
    apply = jax.jit(SMALL.apply)
    base = apply(params, X, T, D, LABEL)
    assert base.shape == X.shape
    assert base.dtype == jnp.float32
    for changed in (
        apply(params, X + 0.1, T, D, LABEL),
        apply(params, X, T + 0.1, D, LABEL),
        apply(params, X, T, D + 0.1, LABEL),
        apply(params, X, T, D, (LABEL + 1) % 3),
    ):
        assert np.abs(changed - base).max(axis=1).min() > 1e-3


def test_the_first_velocity_is_zero() -> None:
    found = jax.jit(lambda key: SMALL.apply(SMALL.init(key), X, T, D, LABEL))(jax.random.key(0))
    np.testing.assert_array_equal(found, jnp.zeros_like(X))


def test_forward_mode_derivatives_are_those_of_finite_differences(params: Params) -> None:
    h = 1e-3

    @jax.jit
    def both() -> tuple[jax.Array, jax.Array]:
        def along(s: Any) -> jax.Array:
            return SMALL.apply(params, X * (1 + s), T + s, D - s, LABEL)

        return jax.jvp(along, (0.0,), (1.0,))[1], (along(h) - along(-h)) / (2 * h)

    derivative, difference = both()
    scale = float(jnp.std(derivative))
    assert scale > 0.1
    np.testing.assert_allclose(derivative, difference, rtol=0, atol=0.02 * scale)


def test_a_perceptron_trains_with_the_shortcut_objective() -> None:
    # The seam: no image, no configuration and no training loop of ours is needed.
    network = MLP(hidden_size=32, depth=2, frequencies=8)
    objective = Shortcut(levels=4, adaptive_power=0.0, label_dropout=0.0, target_decay=None)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600))
    centre, label = jnp.array([[2.0, -1.0]]), jnp.zeros(64, int)

    def loss(params: Params, x1: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.mean(objective(partial(network.apply, params), Batch(x1, label), key, Context()).per_example)

    @jax.jit
    def run(key: jax.Array) -> list[jax.Array]:
        params = network.init(key)

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            x1 = centre + 0.3 * jax.random.normal(jax.random.fold_in(key, 0), (64, 2))
            gradient = jax.grad(loss)(params, x1, key)
            with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers.
                updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, 600))
        start = noise(0, jnp.arange(64), (2,))
        return [sample(partial(network.apply, params), start, label, objective.jumps(steps)) for steps in (1, 4)]

    for points in run(jax.random.key(0)):
        np.testing.assert_allclose(points.mean(axis=0), centre[0], atol=0.1)
        assert 0.1 < points.std(axis=0).min() <= points.std(axis=0).max() < 0.75  # The noise has 1, the data 0.3.


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dimensions": 0}, "model.dimensions is 0, but must be at least 1"),
        ({"depth": 0}, "model.depth is 0, but must be at least 1"),
        ({"num_classes": -1}, "model.num_classes is -1, but must be at least 0"),
        ({"frequencies": 7}, "frequencies is 7, but must be an even number"),
        ({"frequencies": 0}, "frequencies is 0, but must be an even number"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MLP(**sizes)
