"""What holds for every objective of the catalogue."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asking import LABEL, NULL, X0, X1, make_network

from shortcut_models import catalogue
from shortcut_models.config import choose
from shortcut_models.objectives import Batch, Context, Objective
from shortcut_models.objectives.shortcut import Shortcut

IMAGES = 700


def named(name: str) -> Objective:
    return choose("objective", catalogue.OBJECTIVES, name).for_length(IMAGES)


@pytest.mark.parametrize("name", catalogue.OBJECTIVES)
def test_noise_times_step_sizes_and_dropped_labels_are_drawn_independently(name: str) -> None:
    count = 8192
    # Every second label is dropped, so that an association with the drop can be seen.
    objective = replace(named(name), label_dropout=0.5)
    # With no data and a network at rest, the noise can be read off the point.
    x1, labels = jnp.zeros((count, 1)), jnp.zeros(count, jnp.int32)

    @jax.jit
    def run(key: jax.Array) -> Any:
        calls = []

        def rest(x: jax.Array, *others: jax.Array) -> jax.Array:
            calls.append((x, *others))
            return jnp.zeros_like(x)

        still = lambda x, *_: jnp.zeros_like(x)  # noqa: E731
        x0 = jax.random.normal(jax.random.key(9), x1.shape) if objective.needs_pairs else None
        objective(rest, Batch(x1, labels, x0), key, Context(still, still, IMAGES - 1, NULL))
        return calls[-1]

    x, t, d, label = (np.asarray(a, np.float64) for a in run(jax.random.key(3)))
    for part in np.unique(d > 0):
        rows = (d > 0) == part
        # A pair of live reflow, of a network at rest, stays where its noise is.
        shrunk = np.where((d == 1) & (name.startswith("live-reflow")), 1, 1 - (1 - objective.noise_floor) * t)
        drawn = {
            "noise": (x[:, 0] / np.maximum(shrunk, 1e-6))[rows],
            "time": t[rows],
            "dropped": label[rows],
            "step": d[rows],
        }
        assert abs(drawn["noise"].var() - 1) < 0.2
        # Where a jump starts, as a share of where it may; consistency models start where their step size says.
        short = rows & (d > 0) & (d < 1)
        start = t[short] / (1 - d[short])
        if short.any() and start.std() > 1e-3:
            assert abs(np.corrcoef(start, d[short])[0, 1]) < 5 / math.sqrt(short.sum())
        for a, b in (
            ("noise", "time"),
            ("noise", "dropped"),
            ("time", "dropped"),
            ("noise", "step"),
            ("step", "dropped"),
        ):
            if drawn[a].std() and drawn[b].std():
                assert abs(np.corrcoef(drawn[a], drawn[b])[0, 1]) < 5 / math.sqrt(rows.sum()), (a, b)


ANY_TWO = Shortcut(step_sizes="continuous", split="random")
"""What no name stands for: where two jumps meet is drawn, too."""


@pytest.mark.parametrize("objective", [*map(named, catalogue.OBJECTIVES), ANY_TWO], ids=[*catalogue.OBJECTIVES, "any"])
def test_no_two_draws_share_a_key(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    def recorded(draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(key: jax.Array, *words: Any, **options: Any) -> Any:
            used.append(key)
            return draw(key, *words, **options)

        return drawn

    for draw in ("bernoulli", "fold_in", "normal", "randint", "split", "uniform"):
        monkeypatch.setattr(jax.random, draw, recorded(getattr(jax.random, draw)))
    batch = Batch(X1, LABEL, X0 if objective.needs_pairs else None)
    given = Context(make_network("target"), make_network("teacher"), IMAGES - 1, NULL)
    jax.eval_shape(lambda key: objective(make_network("network"), batch, key, given).per_example, jax.random.key(0))
    assert len(used) > 2
    # While it is traced, one key is one object.
    assert len({id(key) for key in used}) == len(used)


@pytest.mark.parametrize("name", catalogue.OBJECTIVES)
def test_no_gradient_flows_through_targets_made_by_the_weights_in_training(name: str) -> None:
    objective = named(name)

    def loss(own: Any, held: Any) -> jax.Array:
        """The network scales with `own`; its targets are made by itself, or by the same with `held`."""
        network = lambda scale: lambda *inputs: scale * make_network("network")(*inputs)  # noqa: E731
        given = Context(None if held is None else network(held), make_network("teacher"), IMAGES - 1, NULL)
        return objective(network(own), Batch(X1, LABEL, X0), jax.random.key(3), given).per_example.sum()

    @jax.jit
    def run(scale: jax.Array) -> tuple[jax.Array, ...]:
        return *jax.grad(loss, argnums=(0, 1))(scale, scale), jax.grad(lambda own: loss(own, None))(scale)

    own, held, alone = run(jnp.asarray(1.1))
    assert abs(own) > 0.01
    assert held == 0
    np.testing.assert_allclose(alone, own, rtol=1e-5)


@pytest.mark.parametrize("name", catalogue.OBJECTIVES)
def test_without_labels_the_network_sees_the_null_label_alone(name: str) -> None:
    objective = replace(named(name), label_dropout=1.0)
    if not objective.unconditional:
        assert name in ("shortcut-original", "live-reflow-original")  # Their jumps keep the labels.
        return

    def strict(who: str) -> Any:
        """A network that answers nothing to any other label, also within loops, out of which no label can be taken."""

        def velocity(x: jax.Array, t: jax.Array, d: jax.Array, label: jax.Array) -> jax.Array:
            answer = make_network(who)(x, t, d, label)
            return jnp.where(label.reshape(-1, *(1,) * (x.ndim - 1)) == NULL, answer, jnp.nan)

        return velocity

    given = Context(strict("target"), strict("teacher"), null_label=NULL)
    run = jax.jit(
        lambda key, images: (
            objective(strict("network"), Batch(X1, LABEL, X0), key, given._replace(images=images)).per_example
        )
    )
    for images in (0, IMAGES - 1):
        assert np.isfinite(run(jax.random.key(0), images)).all()


def test_every_named_objective_can_sample_and_says_what_it_is_made_for() -> None:
    for name in catalogue.OBJECTIVES:
        objective = named(name)
        jumps = objective.jumps(3)
        np.testing.assert_allclose(jumps.length[jumps.renoise == 1].sum() if (jumps.renoise == 1).all() else 1, 1)
        assert any(objective.supports(steps) for steps in (1, 128))
        assert objective.trains_null_label == (objective.label_dropout > 0)
