"""Training, top to bottom: this page and one file of objectives/ are all of a training step."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from shortcut_models import runs, sharding, starting, startup
from shortcut_models.checkpoint import Checkpoints, agree
from shortcut_models.config import Config, check_fits
from shortcut_models.data.base import Source, remarks
from shortcut_models.data.pipeline import batch_dataset, batches
from shortcut_models.during import NOTHING, During
from shortcut_models.encoding import make_encode
from shortcut_models.networks import Params
from shortcut_models.objectives import Batch, Context, Loss
from shortcut_models.optimizer import make_optimizer
from shortcut_models.runlog import RunLog
from shortcut_models.state import State, Sums, average, decay_at, enter_stage, init_state, restore, shapes_of, to_parts
from shortcut_models.terminal import Progress, StopSignal, telling
from shortcut_models.tracking import Rename, Tracker
from shortcut_models.visits import Visits


def train(
    config: Config, folder: Path, command: str = "", during: During = NOTHING, rename: Rename | None = None
) -> int:
    """Train until `config.max_steps` or Ctrl-C, from the newest checkpoint in `folder` if there is one.

    Writes run.json (configuration, versions, commit), metrics.jsonl and checkpoints/ there, and what `during` asks
    for; `rename` gives a tracking service its own names of metrics. Returns the exit status: 0 when complete, 128 + the
    signal's number when stopped. Raises InputError for settings that cannot work, a folder of another run, or a loss
    that is no longer finite.
    """
    config = runs.settle(config.finished())
    layout = sharding.make_layout(shapes_of(config), config.sharding, config.model.stacked)
    sharding.check_batch(config.batch_size, config.accumulation, layout.mesh)
    check_fits(config)
    source = config.data.open()
    visits = Visits(config, layout, during, folder, command, make_gradient(config))
    with ExitStack() as stack:
        stack.enter_context(runs.training_in(folder))
        if not (folder / "run.json").exists():
            starting.check_start(config)  # Only now: what has started goes on without the run that it started from.
        runs.create_or_check(folder, config, command)
        start = runs.latest(folder) or 0
        if start >= config.max_steps and not visits.pending(start):
            Progress.say(f"{folder} is complete: step {start} of {config.max_steps}.")
            return 0
        stack.enter_context(telling(partial(remarks, source)))
        # Whatever may be refused is opened before anything is compiled.
        trackers = stack.enter_context(runs.trackers(folder, config, start, rename))
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", config.keep))
        stop = stack.enter_context(StopSignal())
        if start:
            state = restore(checkpoints, start, layout)
            Progress.say(f"{folder}: going on from step {start} of {config.max_steps}.")
        else:
            # Jitted straight into its sharding: no device ever holds the whole state of an fsdp run.
            given = starting.to_start_from(config, layout.placed.params)
            state = jax.jit(partial(init_state, config), out_shardings=layout.placed)(given)
            start, state = starting.go_on(config, state)  # With an official training, from its own step.

        saved = take_steps(config, trackers, source, layout, state, start, checkpoints, visits, stop)
        checkpoints.wait()
        pending = visits.pending(saved)
    if saved < config.max_steps or pending:
        Progress.say(f"{folder}: stopped and saved at step {saved}; the same command continues.")
        return 128 + stop.signal
    Progress.say(f"{folder} is complete: step {saved}.")
    return 0


def take_steps(
    config: Config,
    trackers: list[Tracker],
    source: Source,
    layout: sharding.Layout,
    state: State,
    start: int,
    checkpoints: Checkpoints,
    visits: Visits,
    stop: StopSignal,
) -> int:
    """Train from step `start` until the end or a request to stop; returns the last step, which was saved."""
    rows = sharding.local_rows(layout.mesh, config.batch_size)
    stored = batches(batch_dataset(source, config.batch_size, config.seed, rows), start, config.data_threads)
    encode = make_encode(config, layout)
    Progress.say("compiling the training step ...")
    step = compile_step(config, layout)
    done, zeros = start, {name: np.zeros(2, np.float32) for name in state.totals}
    with RunLog(config, trackers, start) as log:
        finished = visits.make(start, state, log, stop)  # What was cut short goes on.
        for index in range(start, config.max_steps if finished else start):
            batch = encode(sharding.place_batch(layout.mesh, next(stored)), np.uint32(index))
            state = enter_stage(config, state, index)
            # Sent off, not waited for: the next batch is read and sent after it while the device learns this one.
            state = step(state, batch, np.uint32(index))
            done = index + 1
            log.follow(done, state.totals)
            due, last = done % config.log_interval == 0, done == config.max_steps
            # Several processes must stop at the same step, so they ask each other, now and then.
            stopping = stop.asked if jax.process_count() == 1 else due and agree(stop.asked)
            visit = visits.due(done)
            save = stopping or last or visit or done % config.save_interval == 0
            if due or save:
                log.take(done, state.totals, keep=due or last)
            if save:
                log.read()  # Nothing is saved once the training has diverged.
                log.saved = done
            if due:
                state = state._replace(totals=jax.device_put(zeros, layout.placed.totals))
            if visits.validation.due(done):
                log.tell(done, {"loss_valid": visits.validation.loss(done, state, encode)})
            if save:
                checkpoints.save(done, to_parts(state))
            if visit and not stopping:
                checkpoints.wait()  # A visit may take long: first what it visits is safe.
                stopping = not visits.make(done, state, log, stop)
            if stopping:
                break
    return done


def make_gradient(config: Config) -> Callable[[State, Batch, Array], tuple[Params, Sums]]:
    """(state, batch, step number) -> the gradient of the loss, and the sums of the metrics."""
    network, objective = config.model, config.objective

    def loss(params: Params, given: Context, batch: Batch, key: Array) -> tuple[Array, Loss]:
        result = objective(partial(network.apply, params), batch, key, given)
        return result.per_example.mean(), result

    def turn(state: State, images: Array, batch: Batch, key: Array) -> tuple[Params, Sums]:
        averaged = state.ema if objective.target_average == config.ema_decay else state.target
        target = jax.lax.stop_gradient(state.params if averaged is None else averaged)
        teacher = None if state.teacher is None else partial(network.apply, state.teacher)
        given = Context(partial(network.apply, target), teacher, images, network.null_label)
        gradient, result = jax.grad(loss, has_aux=True)(state.params, given, batch, key)
        sums = {name: jnp.stack([m.value @ m.weight, m.weight.sum()]) for name, m in result.metrics.items()}
        sums["loss"] = jnp.stack([result.per_example.sum(), jnp.float32(result.per_example.size)])
        return gradient, sums

    def gradient(state: State, batch: Batch, index: Array) -> tuple[Params, Sums]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), index)
        one = partial(turn, state, index * jnp.uint32(config.batch_size))
        if config.accumulation == 1:
            return one(batch, key)
        # Turn k takes rows k, k + turns, ...: every device's block of rows serves every turn.
        turns = jax.tree.map(lambda a: a.reshape(-1, config.accumulation, *a.shape[1:]).swapaxes(0, 1), batch)
        keys = jax.random.split(key, config.accumulation)
        first = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, jax.tree.map(lambda a: a[0], turns), key))
        add = lambda total, part: (jax.tree.map(jnp.add, total, one(*part)), None)  # noqa: E731
        total, sums = jax.lax.scan(add, first, (turns, keys))[0]
        return jax.tree.map(lambda g: g / config.accumulation, total), sums

    return gradient


def make_step(config: Config) -> Callable[[State, Batch, Array], State]:
    """One training step: (state, batch, step number) -> state."""
    objective, optimizer, learn = config.objective, make_optimizer(config.optimizer), make_gradient(config)

    def step(state: State, batch: Batch, index: Array) -> State:
        gradient, sums = learn(state, batch, index)
        with jax.named_scope("update"):
            with jax.numpy_dtype_promotion("standard"):  # Optax mixes its step count with floats.
                updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            sums["gradient_norm"] = jnp.stack([optax.tree.norm(gradient), jnp.float32(1)])
            ema = average(state.ema, params, decay_at(config, config.ema_decay, index))
            target = state.target
            if target is not None:
                target = average(target, params, decay_at(config, objective.target_average or 0.0, index))
        totals = {name: state.totals[name] + sums[name] for name in state.totals}
        return State(params, ema, target, state.teacher, opt_state, totals)

    return step


def compile_step(config: Config, layout: sharding.Layout) -> Any:
    """The step, compiled ahead for its shapes; the state's buffers are reused for the new state."""
    spread, size = sharding.batch_sharding(layout.mesh), config.batch_size
    x1: Any = jax.ShapeDtypeStruct((size, *config.model.shape), jnp.float32, sharding=spread)
    label: Any = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=spread)
    batch = Batch(x1, label, x1 if config.data.paired else None)
    step = jax.jit(make_step(config), donate_argnums=0, out_shardings=layout.placed)
    with layout.scope():
        state = sharding.abstract(layout.shapes, layout.placed)
        compiled = step.lower(state, batch, jax.ShapeDtypeStruct((), jnp.uint32)).compile()
    startup.give_back()
    return compiled
