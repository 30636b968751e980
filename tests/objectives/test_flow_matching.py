import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.objectives import Batch, Context, Loss, Times
from shortcut_models.objectives.flow_matching import ORIGINAL, FlowMatching
from shortcut_models.sampling import euler_jumps

BATCH, NULL = 32, 7
RNG = np.random.default_rng(0)
X1 = jnp.asarray(RNG.standard_normal((BATCH, 2, 3), np.float32))
LABEL = jnp.asarray(np.arange(BATCH) % NULL, jnp.int32)


def velocity(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
    per_example = t + 2 * d + 0.1 * label.astype(jnp.float32)
    return jnp.sin(x) + per_example[:, None, None]


def run(objective: FlowMatching, x1: jax.Array) -> tuple[Loss, list[np.ndarray]]:
    """The loss, and what the network was given."""

    @jax.jit
    def both(x1: jax.Array, key: jax.Array) -> tuple[Loss, list[tuple[jax.Array, ...]]]:
        calls = []

        def recorded(*inputs: jax.Array) -> jax.Array:
            calls.append(inputs)
            return velocity(*inputs)

        return objective(recorded, Batch(x1, LABEL), key, Context(null_label=NULL)), calls

    loss, calls = both(x1, jax.random.key(5))
    assert len(calls) == 1
    return loss, [np.asarray(a) for a in calls[0]]


@pytest.mark.parametrize(
    "objective",
    [FlowMatching(), FlowMatching(times=Times("grid", 4), label_dropout=0.5, adaptive_power=0.5, adaptive_floor=0.1)],
    ids=["default", "weighted"],
)
def test_the_loss_is_that_of_a_slow_second_derivation(objective: FlowMatching) -> None:
    loss, (x, t, d, label) = run(objective, X1)
    # With all data at zero, the same draws show the noise by itself.
    _, (noise, same_t, _, _) = run(objective, jnp.zeros_like(X1))
    np.testing.assert_array_equal(t, same_t)
    np.testing.assert_array_equal(d, 0)
    errors = []
    for i in range(BATCH):
        x0, x1 = noise[i] / (1 - t[i]), np.asarray(X1[i])
        np.testing.assert_allclose(x[i], (1 - t[i]) * x0 + t[i] * x1, rtol=1e-4, atol=1e-5)
        assert label[i] in (LABEL[i], NULL)
        error = np.sin(x[i]) + t[i] + 0.1 * label[i] - (x1 - x0)
        errors.append(np.mean(error**2))
    errors = np.array(errors)
    weight = (errors + objective.adaptive_floor) ** -objective.adaptive_power
    np.testing.assert_allclose(loss.per_example, weight * errors, rtol=1e-4)
    assert list(loss.metrics) == ["error/d=0"]
    np.testing.assert_allclose(loss.metrics["error/d=0"].value, errors, rtol=1e-4)
    np.testing.assert_array_equal(loss.metrics["error/d=0"].weight, 1)
    pooled = noise / (1 - t[:, None, None])
    assert abs(pooled.mean()) < 5 / np.sqrt(pooled.size)
    assert abs(pooled.var() - 1) < 5 * np.sqrt(2 / pooled.size)


def test_flow_matching_takes_any_batch_and_samples_by_euler_steps() -> None:
    objective = FlowMatching()
    assert objective.target_average is None
    objective.check(1, 1)
    for found, expected in zip(objective.jumps(5), euler_jumps(5), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_dropped_labels_need_a_null_label_and_a_fraction() -> None:
    with pytest.raises(InputError, match="null_label is needed"):
        FlowMatching()(velocity, Batch(X1, LABEL), jax.random.key(0), Context())
    with pytest.raises(InputError, match=r"objective.label_dropout is 1\.5, but must lie between 0 and 1"):
        FlowMatching(label_dropout=1.5)


def test_the_original_has_the_constants_of_its_code() -> None:
    expected = FlowMatching(times=Times("grid", 128), noise_floor=1e-5, averaging="constant", label_dropout=0.1)
    assert expected == ORIGINAL
    # What is left of the noise at the end is in the point and in the velocity: a network that knows it has no error.
    x0, x1 = jnp.full((BATCH, 1), 1e4), jnp.ones((BATCH, 1))

    def knowing(x: jax.Array, *_: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x1 - (1 - 1e-5) * x0, x.shape)

    loss = ORIGINAL(knowing, Batch(x1, LABEL, x0), jax.random.key(0), Context(null_label=NULL))
    np.testing.assert_array_equal(loss.per_example, 0)
