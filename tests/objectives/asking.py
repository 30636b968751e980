"""Networks with known answers, and what an objective asked of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shortcut_models.objectives import Batch, Context, Loss, Objective

ROWS, NULL = 64, 9
SCALES = {"network": 1.0, "target": 1.3, "teacher": 0.7}


class Asked(NamedTuple):
    """A loss, the data behind it, and the one call of the network in training; all NumPy, float64."""

    loss: Loss
    x0: Any
    x1: Any
    x: Any
    t: Any
    d: Any
    label: Any


def answer(who: str, x: Any, t: Any, d: Any, label: Any) -> Any:
    """The velocity of one of the three networks for one example, slowly."""
    return np.sin(SCALES[who] * x) + t - 2 * d * x + 0.3 * SCALES[who] * label


def make_network(who: str) -> Callable[..., jax.Array]:
    def velocity(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
        t, d, label = (a.astype(jnp.float32).reshape(-1, *(1,) * (x.ndim - 1)) for a in (t, d, label))
        return jnp.sin(SCALES[who] * x) + t - 2 * d * x + 0.3 * SCALES[who] * label

    return velocity


RNG = np.random.default_rng(0)
X0, X1 = (jnp.asarray(RNG.standard_normal((ROWS, 2, 3)), jnp.float32) for _ in range(2))
LABEL = jnp.asarray(np.arange(ROWS) % NULL, jnp.int32)


def ask(objective: Objective, images: int = 0, seed: int = 0) -> Asked:
    """Evaluate an objective on 64 known pairs of noise and data."""

    def evaluate(key: jax.Array) -> tuple[Loss, Any]:
        calls: list[Any] = []

        def recorded(*inputs: jax.Array) -> jax.Array:
            calls.append(inputs)
            return make_network("network")(*inputs)

        given = Context(make_network("target"), make_network("teacher"), images, NULL)
        loss = objective(recorded, Batch(X1, LABEL, X0), key, given)
        assert len(calls) == 1
        return loss, calls[0]

    loss, call = jax.tree.map(lambda a: np.asarray(a, np.float64), jax.jit(evaluate)(jax.random.key(seed)))
    return Asked(loss, np.asarray(X0, np.float64), np.asarray(X1, np.float64), *call)


def expect_loss(
    asked: Asked, goals: Any, weighted: Callable[[int, float], float], bucket: Callable[[int], str]
) -> None:
    """Check a loss and its metrics against the goals of all rows."""
    rows = range(ROWS)
    given = [(asked.x[i], asked.t[i], asked.d[i], asked.label[i]) for i in rows]
    errors = [float(np.mean((answer("network", *given[i]) - goals[i]) ** 2)) for i in rows]
    # Divisions by 1 - t as small as 1/128 leave float32 less digits than usual.
    np.testing.assert_allclose(asked.loss.per_example, [weighted(i, errors[i]) for i in rows], rtol=2e-3)
    assert {bucket(i) for i in rows} <= set(asked.loss.metrics)  # Every row counts somewhere.
    for name, metric in asked.loss.metrics.items():
        np.testing.assert_allclose(metric.value, errors, rtol=2e-3)
        np.testing.assert_array_equal(metric.weight, [bucket(i) == name for i in rows])
