"""What changes from step to step of a training, where it begins, and how it is saved."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import Config
from shortcut_models.networks import Params
from shortcut_models.objectives import Batch, Context
from shortcut_models.optimizer import make_optimizer
from shortcut_models.sharding import Layout, abstract

Sums = dict[str, Float[Array, " 2"]]
"""For each metric: weighted sum, and sum of weights."""


class State(NamedTuple):
    """All that changes from step to step; with the step's number, all that resuming needs."""

    params: Params
    ema: Params
    """Moving average of params, for sampling."""
    target: Params | None
    """Moving average of params that makes the objective's targets; None if params or ema do."""
    teacher: Params | None
    """Frozen weights that the objective distils; None if it needs none."""
    opt_state: optax.OptState
    totals: Sums
    """Since the last log."""


def init_state(config: Config, weights: Params | None = None) -> State:
    """The state before the first step; a function of config.seed and the weights to start from, if any."""
    params = weights or config.model.init(jax.random.fold_in(jax.random.key(config.seed), 0))
    return State(
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        target=jax.tree.map(jnp.copy, params) if has_own_target(config) else None,
        teacher=jax.tree.map(jnp.copy, params) if config.objective.needs_teacher else None,
        opt_state=make_optimizer(config.optimizer).init(params),
        totals={name: jnp.zeros(2) for name in metric_names(config)},
    )


def shapes_of(config: Config) -> State:
    """The shapes of a state."""
    return jax.eval_shape(partial(init_state, config))


def has_own_target(config: Config) -> bool:
    """Whether the objective's targets need an average besides the one for sampling."""
    return config.objective.target_average not in (None, config.ema_decay)


def stage_starts(config: Config) -> tuple[int, ...]:
    """The steps, from 0, before which the network so far becomes the objective's teacher."""
    return tuple(-(-images // config.batch_size) for images in config.objective.snapshots)


def enter_stage(config: Config, state: State, index: int) -> State:
    """The state for step `index`: where that starts a stage, the network so far becomes the teacher."""
    if index not in stage_starts(config):
        return state
    weights = state.ema if config.objective.averaged_teacher else state.params
    return state._replace(teacher=jax.tree.map(jnp.copy, weights))


def decay_at(config: Config, decay: float, index: Integer[Array, ""]) -> Float[Array, ""] | float:
    """Decay of an average of the weights in step `index`.

    A growing one is at most (1+k)/(10+k), k steps into the training or its stage: the average reaches
    back over about a ninth of that, and keeps nothing of where it started.
    """
    if config.objective.averaging == "constant":
        return decay
    starts = jnp.asarray((0, *stage_starts(config)), jnp.uint32)
    k = (index - jnp.max(jnp.where(starts <= index, starts, jnp.uint32(0)))).astype(jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + k) / (10 + k))


def average(old: Params, new: Any, decay: Float[Array, ""] | float) -> Params:
    """Exponential moving average: decay * old + (1 - decay) * new."""
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, new)


def metric_names(config: Config) -> list[str]:
    """Names of all metrics that a step logs."""
    model, size = config.model, config.batch_size // config.accumulation
    x1, label = jax.ShapeDtypeStruct((size, *model.shape), jnp.float32), jax.ShapeDtypeStruct((size,), jnp.int32)

    def metrics(x1: Array, label: Array, key: Array) -> dict[str, Any]:
        given = Context(target=_still, teacher=_still, null_label=model.null_label)
        return config.objective(_still, Batch(x1, label, x1), key, given).metrics

    return ["loss", *jax.eval_shape(metrics, x1, label, jax.eval_shape(lambda: jax.random.key(0))), "gradient_norm"]


def _still(x: Array, *_: Array) -> Array:
    """A network of the right shape, when only names and shapes matter."""
    return x


def read_totals(totals: dict[str, Array], names: list[str]) -> dict[str, float]:
    """Weighted means since the last log; a metric that no example fell under is left out."""
    host = jax.device_get(totals)
    return {name: float(host[name][0] / host[name][1]) for name in names if host[name][1]}


def to_parts(state: State) -> dict[str, Any]:
    """The state as a checkpoint's parts: the two sets of weights apart, so that sampling reads one."""
    rest = {"target": state.target, "teacher": state.teacher, "opt_state": state.opt_state, "totals": state.totals}
    return {"params": state.params, "ema": state.ema, "rest": rest}


def restore(checkpoints: Checkpoints, step: int, layout: Layout) -> State:
    """The state saved after `step` steps, straight into its sharding, whatever wrote it."""
    parts = checkpoints.load(step, to_parts(abstract(layout.shapes, layout.placed)))
    return State(parts["params"], parts["ema"], **parts["rest"])
