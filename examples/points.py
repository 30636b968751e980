"""Learn a flow of 2-D points with a small network and draw it in 1, 2 and 128 steps.

This is a whole training loop of its own: an objective, a network, and a gradient. Nothing of
`shortcut_models.train` is used. Run it with `make example`; it takes under a minute on a CPU.
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives import Batch, Context
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.sampling import noise, sample_path


def two_moons(key: jax.Array, count: int) -> jax.Array:
    """Points on two interleaved half circles with a little noise, (count, 2)."""
    angle_key, side_key, noise_key = jax.random.split(key, 3)
    angle = jnp.pi * jax.random.uniform(angle_key, (count,))
    side = jax.random.bernoulli(side_key, 0.5, (count,))
    x = jnp.where(side, 1 - jnp.cos(angle), jnp.cos(angle)) - 0.5
    y = jnp.where(side, 0.5 - jnp.sin(angle), jnp.sin(angle)) - 0.25
    return 1.5 * jnp.stack([x, y], axis=1) + 0.08 * jax.random.normal(noise_key, (count, 2))


def train(steps: int = 6000, batch_size: int = 512) -> tuple[MLP, dict, Shortcut]:
    """The loop: under 30 lines from nothing to trained parameters."""
    network = MLP(dimensions=2, hidden_size=128, depth=3)
    # In two dimensions, weighting each point by its own error would shift the mean that is learnt.
    objective = Shortcut(label_dropout=0.0, step_sizes="continuous", adaptive_flow=False, flow_weight=4.0)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def loss(params, target, key):
        data_key, key = jax.random.split(key)
        x1, label = two_moons(data_key, batch_size), jnp.zeros(batch_size, jnp.int32)
        velocity, given = partial(network.apply, params), Context(target=partial(network.apply, target))
        return objective(velocity, Batch(x1, label), key, given).per_example.mean()

    @jax.jit
    def step(params, target, state, index):
        gradient = jax.grad(loss)(params, target, jax.random.fold_in(jax.random.key(0), index))
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        return params, optax.incremental_update(params, target, 0.01), state

    params = target = network.init(jax.random.key(1))
    state = optimizer.init(params)
    for index in range(steps):
        params, target, state = step(params, target, state, np.uint32(index))
    return network, target, objective


def draw(path: Path, network: MLP, params: dict, objective: Shortcut, count: int = 1500) -> None:
    """A panel per budget: the data in grey, the samples in blue, some of the paths in between."""
    data = two_moons(jax.random.key(2), count)
    start, label = noise(3, jnp.arange(count), (2,)), jnp.zeros(count, jnp.int32)
    figure = Figure(figsize=(10.5, 3.7), dpi=120, layout="constrained")
    for axes, steps in zip(figure.subplots(1, 3, sharex=True, sharey=True), (1, 2, 128), strict=True):
        run = partial(sample_path, partial(network.apply, params), jumps=objective.jumps(steps))
        end, points = jax.jit(lambda start, label, run=run: run(start, label))(start, label)
        path_of = jnp.concatenate([start[None], points])[:, :60]
        axes.plot(path_of[..., 0], path_of[..., 1], color="tab:orange", linewidth=0.5, alpha=0.7)
        axes.scatter(data[:, 0], data[:, 1], s=3, color="lightgrey")
        axes.scatter(end[:, 0], end[:, 1], s=3, color="tab:blue")
        axes.set(title=f"{steps} step{'s' * (steps > 1)}", aspect="equal", xlim=(-3.2, 3.2), ylim=(-2.6, 2.6))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/points.png")
    draw(out, *train())
    print(out)
