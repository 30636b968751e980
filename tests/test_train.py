"""The training step by hand, and training that is stopped, killed, spread and continued."""

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shortcut_models import InputError, sharding, startup
from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import Config, Optimizer
from shortcut_models.data import Digits, pipeline
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.networks import MLP, DiT
from shortcut_models.objectives import ORIGINAL, FlowMatching, Shortcut
from shortcut_models.train import (
    State,
    average,
    check_fits,
    compile_step,
    init_state,
    make_optimizer,
    make_schedule,
    make_step,
    restore,
    to_parts,
    train,
)


def saved_state(config: Config, folder: Path, step: int | None = None) -> State:
    """A checkpoint, the newest by default, on one device, whatever wrote it."""
    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(sharding.make_mesh(jax.devices()[:1]), shapes, "dp")
    with Checkpoints(folder / "checkpoints", keep=10) as checkpoints:
        newest = checkpoints.latest
        assert newest is not None
        return restore(checkpoints, step or newest, shapes, placed)


def assert_same(a: Any, b: Any) -> None:
    """Equal trees of equal arrays, to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def rows(folder: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl without the one number that depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in found]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- Stopped and continued


@pytest.fixture(scope="module")
def halfway(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `trained`, stopped after half its steps."""
    folder = tmp_path_factory.mktemp("halfway") / "run"
    assert train(replace(tiny, max_steps=4), folder) == 0
    return folder


def test_a_checkpoint_is_the_state_of_its_step_although_later_steps_reuse_the_buffers(
    tiny: Config, trained: Path, halfway: Path
) -> None:
    # `trained` went on from step 4 while its checkpoint was being written; `halfway` did not.
    assert_same(saved_state(tiny, trained, 4), saved_state(tiny, halfway, 4))


def test_half_the_steps_and_then_the_rest_give_the_same_bytes(
    tiny: Config, trained: Path, halfway: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[Any] = []
    place = sharding.place_batch
    monkeypatch.setattr(sharding, "place_batch", lambda mesh, batch: place(mesh, fed.append(batch) or batch))
    folder = tmp_path / "run"
    folder.symlink_to(halfway)
    assert train(tiny, folder) == 0
    expected, resumed = saved_state(tiny, trained), saved_state(tiny, folder)
    assert resumed.target is not None  # So that all parts of a state are compared.
    assert int(resumed.opt_state[0].count) == 8
    assert_same(resumed, expected)
    assert rows(folder) == rows(trained)
    assert len(fed) == 4
    dataset = batch_dataset(Digits(), tiny.batch_size, tiny.seed)
    for k, batch in enumerate(fed, start=4):
        assert_same(batch, dataset[k])


def test_a_finished_run_says_so_and_changes_nothing(
    tiny: Config, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    assert train(tiny, trained) == 0
    assert "is complete: step 8 of 8" in capsys.readouterr().err
    assert contents(trained) == before


def test_the_newest_checkpoints_are_kept(tiny: Config, trained: Path) -> None:
    assert tiny.keep == 2
    assert sorted(path.name for path in (trained / "checkpoints").iterdir() if path.is_dir()) == ["4", "8"]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def newest(folder: Path) -> int:
    """The newest checkpoint that has its final name."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def last_row(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def test_a_run_killed_then_stopped_by_both_signals_ends_as_one_that_nobody_disturbed(
    tmp_path: Path, tiny: Config, tiny_flags: list[str], start_shortcut: Callable[..., subprocess.Popen[str]]
) -> None:
    folder, calm = tmp_path / "disturbed", tmp_path / "calm"
    # An interval of 3 leaves sums of metrics in the checkpoints.
    flags = [*tiny_flags, "--log-interval", 3, "--save-interval", 50]
    command = ["train", "digits", "--run-dir", folder, *flags, "--max-steps", 1_000_000]

    process = start_shortcut(*command)
    wait_until(lambda: newest(folder) >= 50 and newest(folder) + 5 < last_row(folder) < newest(folder) + 30, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = newest(folder)
    assert kept < last_row(folder)  # It was killed between saves.

    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before, old = newest(folder), (folder / "metrics.jsonl").stat().st_ino
        process = start_shortcut(*command)
        # The file is written anew when the run goes on: only then do its rows come from this process.
        wait_until(lambda old=old: (folder / "metrics.jsonl").stat().st_ino != old, process)
        wait_until(lambda before=before: last_row(folder) > before, process)
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode == status, said
        assert f"going on from step {before} of" in said
        assert f"stopped and saved at step {newest(folder)}" in said
        assert "Traceback" not in said
        assert newest(folder) > before

    end = (newest(folder) // 3 + 2) * 3
    for run in (folder, calm):
        process = start_shortcut("train", "digits", "--run-dir", run, *flags, "--max-steps", end)
        assert process.wait() == 0, process.communicate()[1]
        process.communicate()
    assert newest(folder) == newest(calm) == end
    assert_same(saved_state(tiny, folder), saved_state(tiny, calm))
    assert rows(folder) == rows(calm)
    assert [row["step"] for row in rows(folder)] == list(range(3, end + 1, 3))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tiny: Config, trained: Path, trained_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = lambda images: np.full(images.shape, np.nan, np.float32)  # noqa: E731
    monkeypatch.setattr(pipeline, "to_network", nothing)
    with pytest.raises(InputError, match=r"before step 10 \(the checkpoint of step 8 is kept\): lower --optimizer"):
        train(replace(tiny, max_steps=16, data_threads=0), trained_copy)
    monkeypatch.undo()
    assert newest(trained_copy) == 8
    assert_same(saved_state(tiny, trained_copy), saved_state(tiny, trained))
    assert rows(trained_copy) == rows(trained)  # And no row is not a number.


def test_the_original_recipe_takes_a_step(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, objective=ORIGINAL, max_steps=1)
    assert train(config, tmp_path / "run") == 0
    (row,) = rows(tmp_path / "run")
    # The last layer starts at zero, so the first velocity is zero and the error is that of x1 - x0.
    assert row["error/d=0"] == pytest.approx(1 + np.square(Digits().images / 127.5 - 1).mean(), rel=0.15)
    assert saved_state(config, tmp_path / "run").target is not None


def test_compiling_gives_back_what_it_took(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(startup, "give_back", lambda: given.append(None))
    take_steps(tiny, 1, 1)
    assert len(given) == 1


# --- One device or many


def take_steps(config: Config, count: int, devices: int) -> tuple[list[float], State]:
    mesh = sharding.make_mesh(jax.devices()[:devices])
    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(mesh, shapes, config.sharding)
    state = jax.jit(partial(init_state, config), out_shardings=placed)()
    step, dataset = compile_step(config, mesh, shapes, placed), batch_dataset(Digits(), config.batch_size, config.seed)
    sums = [0.0]
    for index in range(count):
        state = step(state, sharding.place_batch(mesh, dataset[index]), np.uint32(index))
        sums.append(float(state.totals["loss"][0]))
    return list(np.diff(sums) / config.batch_size), state


@pytest.fixture(scope="module")
def on_one_device(tiny: Config) -> tuple[list[float], State]:
    return take_steps(tiny, 10, 1)


@pytest.mark.parametrize("mode", ["dp", "fsdp"])
def test_eight_devices_learn_what_one_does(tiny: Config, on_one_device: tuple[list[float], State], mode: Any) -> None:
    losses, state = take_steps(replace(tiny, sharding=mode), 10, 8)
    expected, alone = on_one_device
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    close = partial(np.testing.assert_allclose, rtol=0, atol=2e-3)
    jax.tree.map(close, jax.device_get(state.ema), jax.device_get(alone.ema))
    for leaf in jax.tree.leaves(state):
        assert len(leaf.sharding.device_set) == 8
    if mode == "fsdp":
        # The kernels are really spread: an eighth of each on every device.
        kernel = state.params["blocks"]["mlp_in"]["kernel"]
        assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 16, 8)}
        moments = optax.tree.get(state.opt_state, "mu")["blocks"]["mlp_in"]["kernel"]
        assert moments.sharding == kernel.sharding


def test_fsdp_spreads_every_large_array_and_never_the_depth(tiny: Config) -> None:
    # Depth 8 could be split over eight devices, but the scan walks it.
    config = replace(tiny, model=replace(tiny.model, depth=8))
    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(sharding.make_mesh(), shapes, "fsdp")
    flat = jax.tree_util.tree_leaves_with_path(placed)
    for (path, where), leaf in zip(flat, jax.tree.leaves(shapes), strict=True):
        name = jax.tree_util.keystr(path)
        spread = [axis for axis, part in enumerate(where.spec) if part is not None]
        if "'blocks'" in name:
            assert 0 not in spread, name
        if "'kernel'" in name:
            assert len(spread) == 1, name
            assert math.prod(where.shard_shape(leaf.shape)) == leaf.size // 8, name


def test_dp_copies_the_whole_state(tiny: Config) -> None:
    shapes = jax.eval_shape(partial(init_state, tiny))
    mesh = sharding.make_mesh()
    placed = sharding.state_sharding(mesh, shapes, "dp")
    assert set(jax.tree.leaves(placed)) == {sharding.replicated(mesh)}


def test_a_checkpoint_of_eight_fsdp_devices_loads_on_one(tiny: Config, trained: Path, tmp_path: Path) -> None:
    shapes = jax.eval_shape(partial(init_state, tiny))
    state = saved_state(tiny, trained)
    spread = jax.device_put(state, sharding.state_sharding(sharding.make_mesh(), shapes, "fsdp"))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(8, to_parts(spread))
        checkpoints.wait()
    loaded = saved_state(tiny, tmp_path)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(loaded)} == {1}
    assert_same(loaded, state)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(12, 1), (24, 2)])
def test_a_batch_that_devices_cannot_share_is_refused_with_the_arithmetic(batch_size: int, accumulation: int) -> None:
    with pytest.raises(
        InputError, match=rf"{batch_size} is not a multiple of 8 device\(s\) x {accumulation}.*use \d+ or"
    ):
        sharding.check_batch(batch_size, accumulation, sharding.make_mesh())


# --- The step by hand, on a perceptron


NETWORK = MLP(dimensions=3, hidden_size=8, depth=1, num_classes=10, frequencies=4)


@pytest.fixture(scope="module")
def points(tiny: Config) -> Config:
    """Settings for a step of NETWORK; flow matching, whose gradient takes few lines."""
    return replace(tiny, objective=FlowMatching(), optimizer=Optimizer(learning_rate=0.1, weight_decay=0.5))


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    x1 = jax.random.normal(jax.random.key(3), (16, 3))
    return {"x1": x1, "label": jnp.arange(16) % 10}


def state_of(config: Config, own_target: bool = False) -> State:
    """A state in which the weights and their averages differ."""
    params, ema, target = (NETWORK.init(jax.random.key(i)) for i in range(3))
    params["out"]["kernel"] = jax.random.normal(jax.random.key(9), params["out"]["kernel"].shape)
    names = ["loss", "error/d=0", "gradient_norm"]
    return State(
        params=params,
        ema=ema,
        target=target if own_target else None,
        teacher=None,
        opt_state=make_optimizer(config.optimizer).init(params),
        totals={name: jnp.asarray([5.0, 2.0]) for name in names},
    )


def by_hand(config: Config, params: Any, batch: dict[str, jax.Array], key: jax.Array) -> tuple[Any, jax.Array]:
    """Gradient of the mean loss, and the losses, straight from the objective."""

    def loss(params: Any) -> Any:
        result = config.objective(partial(NETWORK.apply, params), batch["x1"], batch["label"], key, null_label=10)
        return result.per_example.mean(), result.per_example

    return jax.grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_step_is_one_update_along_the_mean_gradient_of_its_turns(
    points: Config, batch: dict[str, jax.Array], turns: int
) -> None:
    config = replace(points, accumulation=turns, seed=4)
    state = state_of(config)
    after = make_step(config, NETWORK)(state, batch, jnp.uint32(7))

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(4), 1), 7)
    keys = jax.random.split(key, 2) if turns == 2 else [key]
    parts = [jax.tree.map(lambda a, k=k: a[k::turns], batch) for k in range(turns)]
    found = [by_hand(config, state.params, part, own) for part, own in zip(parts, keys, strict=True)]
    gradient = jax.tree.map(lambda *g: sum(g) / turns, *(gradient for gradient, _ in found))
    # AdamW's first step, in full: the bias-corrected averages are the gradient and its square.
    for name in ("hidden0", "out"):
        for leaf in ("kernel", "bias"):
            old, g = state.params[name][leaf], gradient[name][leaf]
            decay = 0.5 * old if leaf == "kernel" else 0
            expected = old - 0.1 * (g / (jnp.abs(g) + 1e-8) + decay)
            np.testing.assert_allclose(after.params[name][leaf], expected, atol=2e-5)
    losses = jnp.concatenate([losses for _, losses in found])
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(after.totals["loss"], [5 + losses.sum(), 2 + 16], rtol=1e-5)
    np.testing.assert_allclose(after.totals["gradient_norm"], [5 + norm, 2 + 1], rtol=1e-5)


def test_turns_split_a_batch_so_that_every_image_counts_once(points: Config, batch: dict[str, jax.Array]) -> None:
    seen: list[np.ndarray] = []

    class Watch(FlowMatching):
        def __call__(self, velocity: Any, x1: Any, label: Any, key: Any, **rest: Any) -> Any:
            jax.debug.callback(lambda x: seen.append(np.asarray(x)), x1)
            return super().__call__(velocity, x1, label, key, **rest)

    config = replace(points, objective=Watch(), accumulation=4)
    jax.block_until_ready(make_step(config, NETWORK)(state_of(config), batch, jnp.uint32(0)))
    jax.effects_barrier()
    assert [len(part) for part in seen] == [4] * 4
    np.testing.assert_array_equal(np.sort(np.concatenate(seen), axis=0), np.sort(batch["x1"], axis=0))


def test_both_averages_follow_their_own_decay(points: Config, batch: dict[str, jax.Array]) -> None:
    config = replace(points, ema_decay=0.75, objective=Shortcut(target_decay=0.5))
    state = state_of(config, own_target=True)
    state = state._replace(totals={"loss": jnp.zeros(2)})
    after = make_step(config, NETWORK)(state, batch, jnp.uint32(0))
    for found, old, decay in ((after.ema, state.ema, 0.75), (after.target, state.target, 0.5)):
        expected = jax.tree.map(lambda a, b, k=decay: k * np.asarray(a) + (1 - k) * np.asarray(b), old, after.params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


@pytest.mark.parametrize(("decay", "makes"), [(None, "params"), (0.9, "ema"), (0.5, "target")])
def test_the_weights_that_make_the_targets_are_those_of_the_settings(
    points: Config, batch: dict[str, jax.Array], decay: float | None, makes: str
) -> None:
    given: list[Any] = []

    class Watch(Shortcut):
        def __call__(self, velocity: Any, x1: Any, label: Any, key: Any, **rest: Any) -> Any:
            given.append(rest["target"].args[0] if "target" in rest else None)
            return super().__call__(velocity, x1, label, key, **rest)

    config = replace(points, objective=Watch(target_decay=decay))
    assert (init_state(config).target is not None) == (makes == "target")
    state = state_of(config, own_target=makes == "target")._replace(totals={"loss": jnp.zeros(2)})
    make_step(config, NETWORK)(state, batch, jnp.uint32(0))
    assert_same(given[-1], getattr(state, makes))


def test_an_average_is_taken_leaf_by_leaf() -> None:
    found = average({"a": jnp.asarray([1.0, 2.0])}, {"a": jnp.asarray([5.0, -2.0])}, 0.75)
    np.testing.assert_array_equal(found["a"], [2.0, 1.0])


def test_weight_decay_shrinks_matrices_and_nothing_else(tiny: Config) -> None:
    optimizer = make_optimizer(Optimizer(learning_rate=0.5, weight_decay=0.25))
    params = jax.tree.map(jnp.ones_like, tiny.model.init(jax.random.key(0)))
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    decayed = set()
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        kind = path[-1].key
        np.testing.assert_array_equal(update, np.full(update.shape, -0.125 if kind == "kernel" else 0.0))
        decayed.add(kind)
    assert decayed == {"kernel", "bias", "table"}


def test_clipping_bounds_the_gradient_that_the_optimiser_sees() -> None:
    params = {"kernel": jnp.zeros(4)}
    optimizer = make_optimizer(Optimizer(clip_norm=0.5, learning_rate=1.0))
    with jax.numpy_dtype_promotion("standard"):
        _, state = optimizer.update({"kernel": jnp.full(4, 3.0)}, optimizer.init(params), params)
    np.testing.assert_allclose(optax.tree.get(state, "mu")["kernel"], np.full(4, 0.1 * 0.25), rtol=1e-6)


def test_the_learning_rate_rises_then_stays() -> None:
    schedule = make_schedule(Optimizer(learning_rate=2.0, warmup_steps=4))
    np.testing.assert_allclose([schedule(i) for i in range(7)], [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0], rtol=1e-6)
    assert [float(jnp.asarray(make_schedule(Optimizer(learning_rate=2.0))(i))) for i in range(3)] == [2.0] * 3
    one = make_schedule(Optimizer(learning_rate=2.0, warmup_steps=1))
    assert [float(jnp.asarray(one(i))) for i in range(3)] == [2.0] * 3


def test_the_learning_rate_rises_then_falls_along_a_cosine_to_zero() -> None:
    schedule = make_schedule(Optimizer(learning_rate=2.0, warmup_steps=2, schedule="cosine", decay_steps=10))
    expected = [1.0, 2.0, *(1 + math.cos(math.pi * k / 8) for k in range(9)), 0.0]
    np.testing.assert_allclose([schedule(i) for i in range(12)], expected, atol=1e-6)


def test_a_network_that_does_not_fit_the_images_is_refused(tiny: Config) -> None:
    with pytest.raises(InputError, match=r"\(8, 8, 1\), but the network takes \(16, 16, 1\).*--model.image-size 8"):
        check_fits(replace(tiny, model=replace(tiny.model, image_size=16)), (8, 8, 1), 10)
    with pytest.raises(InputError, match=r"10 labels, but model.num_classes is 3: set --model.num-classes 10"):
        check_fits(replace(tiny, model=DiT(image_size=8, channels=1, num_classes=3)), (8, 8, 1), 10)
