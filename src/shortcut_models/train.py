"""Training, top to bottom: this page and one file of objectives/ are all of a training step."""

import math
import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from shortcut_models import runs, sharding, startup
from shortcut_models.checkpoint import Checkpoints, agree
from shortcut_models.config import Config, Optimizer
from shortcut_models.data import Source, open_source
from shortcut_models.data.pipeline import batch_dataset, batches
from shortcut_models.errors import InputError
from shortcut_models.models import Network, Params
from shortcut_models.objectives import Loss
from shortcut_models.objectives.flow import check_pairs
from shortcut_models.terminal import Progress, StopSignal
from shortcut_models.tracking import Tracker

Batch = dict[str, Array]


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
    totals: dict[str, Float[Array, " 2"]]
    """For each metric since the last log: weighted sum, and sum of weights."""


def train(config: Config, folder: Path, command: str = "") -> int:
    """Train until `config.max_steps` or Ctrl-C, from the newest checkpoint in `folder` if there is one.

    Writes run.json (configuration, versions, commit), metrics.jsonl and checkpoints/ there. Returns
    the exit status: 0 when complete, 128 + the signal's number when stopped. Raises InputError for
    settings that cannot work, a folder of another run, or a loss that is no longer finite.
    """
    config = runs.settle(config)
    mesh = sharding.make_mesh()
    sharding.check_batch(config.batch_size, config.accumulation, mesh)
    source = open_source(config.dataset_name)
    check_fits(config, source.image_shape, source.num_classes)
    check_pairs(config.objective, "noise" in source[0])

    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(mesh, shapes, config.sharding)
    with ExitStack() as stack:
        stack.enter_context(runs.training_in(folder))
        runs.create_or_check(folder, config, command)
        start = runs.latest(folder) or 0
        if start >= config.max_steps:
            Progress.say(f"{folder} is complete: step {start} of {config.max_steps}.")
            return 0
        # Whatever may be refused is opened before anything is compiled.
        trackers = stack.enter_context(runs.trackers(folder, config, start))
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", config.keep))
        stop = stack.enter_context(StopSignal())
        if start:
            state = restore(checkpoints, start, shapes, placed)
            Progress.say(f"{folder}: going on from step {start} of {config.max_steps}.")
        else:
            # Jitted straight into its sharding: no device ever holds the whole state of an fsdp run.
            weights = runs.start_weights(config, placed.params)
            state = jax.jit(partial(init_state, config), out_shardings=placed)(weights)

        saved = take_steps(config, trackers, source, mesh, placed, state, start, checkpoints, stop)
        checkpoints.wait()
    if saved < config.max_steps:
        Progress.say(f"{folder}: stopped and saved at step {saved}; the same command continues.")
        return 128 + stop.signal
    Progress.say(f"{folder} is complete: step {saved}.")
    return 0


def take_steps(
    config: Config,
    trackers: list[Tracker],
    source: Source,
    mesh: jax.sharding.Mesh,
    placed: State,
    state: State,
    start: int,
    checkpoints: Checkpoints,
    stop: StopSignal,
) -> int:
    """Train from step `start` until the end or a request to stop; returns the last step, which was saved."""
    rows = sharding.local_rows(mesh, config.batch_size)
    data = batches(batch_dataset(source, config.batch_size, config.seed, rows), start, config.data_threads)
    Progress.say("compiling the training step ...")
    step = compile_step(config, mesh, jax.eval_shape(lambda: state), placed, paired="noise" in source[0])
    zeros = {name: np.zeros(2, np.float32) for name in state.totals}
    done = start
    with Report(config, trackers, start) as report:
        for index in range(start, config.max_steps):
            batch = sharding.place_batch(mesh, next(data))
            if takes_snapshot(config, index):
                state = state._replace(teacher=jax.tree.map(jnp.copy, state.ema))
            # Sent off, not waited for: the next batch is read and sent after it while the device learns this one.
            state = step(state, batch, np.uint32(index))
            report.read()  # One step late, for the same reason.
            done = index + 1
            log, last = done % config.log_interval == 0, done == config.max_steps
            # Several processes must stop at the same step, so they ask each other, now and then.
            stopping = stop.asked if jax.process_count() == 1 else log and agree(stop.asked)
            save = stopping or last or done % config.save_interval == 0
            if log or save:
                report.take(done, state.totals, keep=log or last)
            if save:
                report.read()  # Nothing is saved once the training has diverged.
                report.saved = done
            if log:
                state = state._replace(totals=jax.device_put(zeros, placed.totals))
            if save:
                checkpoints.save(done, to_parts(state))
            if stopping:
                break
    return done


class Report:
    """Tells a run's metrics to the terminal and, on the first process, to the trackers."""

    def __init__(self, config: Config, trackers: list[Tracker], start: int) -> None:
        self.saved = start
        """The last step that was saved."""
        self._size, self._names = config.batch_size, metric_names(config)
        self._schedule = make_schedule(config.optimizer)
        self._progress = Progress(start * config.batch_size, config.max_steps * config.batch_size)
        self._trackers = trackers
        self._waiting: tuple[int, dict[str, Array], bool] | None = None

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *given: Any) -> None:
        self._progress.__exit__(*given)

    def take(self, done: int, totals: dict[str, Array], keep: bool) -> None:
        """Note the metrics after step `done`, for `read` to tell; the trackers too if `keep`."""
        self._waiting = (done, totals, keep)

    def read(self) -> None:
        """Wait for what was noted, if anything, and tell it; raises InputError if training has diverged."""
        if self._waiting is None:
            return
        (done, totals, keep), self._waiting = self._waiting, None
        metrics = read_totals(totals, self._names)
        check_finite(metrics, done, self.saved)
        self._progress.update(done * self._size, metrics)
        rate = float(jnp.asarray(self._schedule(done - 1)))
        rates = {"learning_rate": rate, "images_per_second": self._progress.rate}
        for tracker in self._trackers if keep else ():
            tracker.log(done, {"images": done * self._size, **metrics, **rates})


def start_processes() -> None:
    """Join the other processes of a run, if JAX_COORDINATOR_ADDRESS says that there are any.

    JAX_NUM_PROCESSES and JAX_PROCESS_ID complete it; on a cluster that JAX knows, they may be absent.
    """
    if "JAX_COORDINATOR_ADDRESS" in os.environ and not jax.distributed.is_initialized():
        count, own = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"], int(count) if count else None, int(own) if own else None
        )


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


def takes_snapshot(config: Config, index: int) -> bool:
    """Whether the averaged weights become the objective's teacher before step `index`."""
    before, now = (index - 1) * config.batch_size, index * config.batch_size
    return any(before < images <= now for images in config.objective.snapshots)


def make_step(config: Config, network: Network) -> Callable[[State, Batch, Array], State]:
    """One training step: (state, batch, step number) -> state."""
    objective, optimizer = config.objective, make_optimizer(config.optimizer)
    null_label = config.model.null_label

    def loss(params: Params, fixed: dict[str, Any], batch: Batch, key: Array) -> tuple[Array, Loss]:
        velocity = partial(network.apply, params)
        result = objective(
            velocity, batch["x1"], batch["label"], key, x0=batch.get("x0"), null_label=null_label, **fixed
        )
        return result.per_example.mean(), result

    def turn(state: State, images: Array, batch: Batch, key: Array) -> tuple[Params, dict[str, Float[Array, " 2"]]]:
        target = state.ema if config.objective.target_decay == config.ema_decay else state.target
        target = lax.stop_gradient(state.params if target is None else target)
        teacher = None if state.teacher is None else partial(network.apply, state.teacher)
        fixed = {"target": partial(network.apply, target), "teacher": teacher, "images": images}
        gradient, result = jax.grad(partial(loss, fixed=fixed), has_aux=True)(state.params, batch=batch, key=key)
        sums = {name: jnp.stack([m.value @ m.weight, m.weight.sum()]) for name, m in result.metrics.items()}
        sums["loss"] = jnp.stack([result.per_example.sum(), jnp.float32(result.per_example.size)])
        return gradient, sums

    def step(state: State, batch: Batch, index: Array) -> State:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), index)
        one = partial(turn, state, index * jnp.uint32(config.batch_size))
        if config.accumulation == 1:
            gradient, sums = one(batch, key)
        else:
            # Turn k takes rows k, k + turns, ...: every device's block of rows serves every turn.
            turns = jax.tree.map(lambda a: a.reshape(-1, config.accumulation, *a.shape[1:]).swapaxes(0, 1), batch)
            keys = jax.random.split(key, config.accumulation)
            first = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, jax.tree.map(lambda a: a[0], turns), key))
            add = lambda total, part: jax.tree.map(jnp.add, total, one(*part))  # noqa: E731
            gradient, sums = lax.scan(lambda total, part: (add(total, part), None), first, (turns, keys))[0]
            gradient = jax.tree.map(lambda g: g / config.accumulation, gradient)
        with jax.named_scope("update"):
            with jax.numpy_dtype_promotion("standard"):  # Optax mixes its step count with floats.
                updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            sums["gradient_norm"] = jnp.stack([optax.tree.norm(gradient), jnp.float32(1)])
            ema = average(state.ema, params, config.ema_decay)
            target = state.target and average(state.target, params, config.objective.target_decay or 0)
        totals = {name: state.totals[name] + sums[name] for name in state.totals}
        return State(params, ema, target, state.teacher, opt_state, totals)

    return step


def average(old: Params, new: Any, decay: float) -> Params:
    """Exponential moving average: decay * old + (1 - decay) * new."""
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, new)


def make_schedule(config: Optimizer) -> optax.Schedule:
    """Learning rate as a function of the step: linear warm-up, then constant or cosine (or cosines) to 0."""
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        length, cycle = config.decay_steps - warmup, optax.cosine_decay_schedule(peak, 1)
        # Past the last cycle the rate stays at 0.
        after = lambda step: cycle(jnp.where(step < length, step * config.cycles / length % 1, 1))  # noqa: E731
    else:
        after = optax.constant_schedule(peak)
    # The first step of a warm-up is already above 0, so that no step is wasted.
    return optax.join_schedules(
        [optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1)), after], [warmup]
    )


def make_optimizer(config: Optimizer) -> optax.GradientTransformation:
    """AdamW with the schedule; decay on leaves named "kernel" alone, clipping first if asked for."""

    def matrices(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)

    adamw = optax.adamw(
        make_schedule(config), config.beta1, config.beta2, weight_decay=config.weight_decay, mask=matrices
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def has_own_target(config: Config) -> bool:
    """Whether the objective's targets need an average besides the one for sampling."""
    return config.objective.target_decay not in (None, config.ema_decay)


def metric_names(config: Config) -> list[str]:
    """Names of all metrics that a step logs."""
    model, size = config.model, config.batch_size // config.accumulation
    x1, label = jax.ShapeDtypeStruct((size, *model.shape), jnp.float32), jax.ShapeDtypeStruct((size,), jnp.int32)
    objective = partial(config.objective, _still, teacher=_still, null_label=model.null_label)
    result = jax.eval_shape(objective, x1, label, jax.eval_shape(lambda: jax.random.key(0)), x0=x1)
    return ["loss", *result.metrics, "gradient_norm"]


def _still(x: Array, *_: Array) -> Array:
    """A network of the right shape, when only names and shapes matter."""
    return x


def compile_step(config: Config, mesh: jax.sharding.Mesh, shapes: State, placed: State, paired: bool = False) -> Any:
    """The step, compiled ahead for its shapes; the state's buffers are reused for the new state.

    A batch of `paired` data has the noise "x0" of each image.
    """
    spread = sharding.batch_sharding(mesh)
    size = config.batch_size
    images = jax.ShapeDtypeStruct((size, *config.model.shape), jnp.float32, sharding=spread)
    batch = {"x1": images, "label": jax.ShapeDtypeStruct((size,), jnp.int32, sharding=spread)}
    batch |= {"x0": images} if paired else {}
    step = jax.jit(make_step(config, config.model), donate_argnums=0, out_shardings=placed)
    # The network sees the mesh only where its parameters are spread: see `models.embedding.whole`.
    with jax.set_mesh(mesh) if config.sharding == "fsdp" and mesh.size > 1 else nullcontext():
        compiled = step.lower(abstract(shapes, placed), batch, jax.ShapeDtypeStruct((), jnp.uint32)).compile()
    startup.give_back()
    return compiled


def abstract(shapes: Any, placed: Any) -> Any:
    """Shapes with their shardings."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, placed
    )


def to_parts(state: State) -> dict[str, Any]:
    """The state as a checkpoint's parts: the two sets of weights apart, so that sampling reads one."""
    rest = {"target": state.target, "teacher": state.teacher, "opt_state": state.opt_state, "totals": state.totals}
    return {"params": state.params, "ema": state.ema, "rest": rest}


def restore(checkpoints: Checkpoints, step: int, shapes: State, placed: State) -> State:
    """The state saved after `step` steps, straight into its sharding, whatever wrote it."""
    parts = checkpoints.load(step, to_parts(abstract(shapes, placed)))
    return State(parts["params"], parts["ema"], **parts["rest"])


def read_totals(totals: dict[str, Array], names: list[str]) -> dict[str, float]:
    """Weighted means since the last log; a metric that no example fell under is left out."""
    host = jax.device_get(totals)
    return {name: float(host[name][0] / host[name][1]) for name in names if host[name][1]}


def check_finite(metrics: dict[str, float], step: int, saved: int) -> None:
    """Raise InputError if training has diverged; nothing was saved since it did."""
    if not all(math.isfinite(value) for value in metrics.values()):
        last = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was written yet"
        raise InputError(
            f"the loss or the gradient stopped being finite before step {step} ({last}): lower "
            "--optimizer.learning-rate, add --optimizer.warmup-steps, or set --optimizer.clip-norm 1."
        )


def check_fits(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise InputError unless the network takes the source's images and labels."""
    if config.model.shape != image_shape:
        raise InputError(
            f"the images of {config.dataset_name!r} are {image_shape}, but the network takes {config.model.shape} "
            f"(height, width, channels): set --model.image-size {image_shape[0]} --model.channels {image_shape[2]}."
        )
    if config.model.num_classes < num_classes:
        raise InputError(
            f"{config.dataset_name!r} has {num_classes} labels, but model.num_classes is "
            f"{config.model.num_classes}: set --model.num-classes {num_classes}."
        )
