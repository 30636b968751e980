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
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shortcut_models import InputError, sharding, startup
from shortcut_models.checkpoint import Checkpoints, newest
from shortcut_models.codecs.pixels import Pixels
from shortcut_models.config import Config, check_fits
from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.digits import Digits
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.data.points import Points
from shortcut_models.encoding import make_encode
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives import Batch, Context
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.reflow import Reflow
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut
from shortcut_models.optimizer import Optimizer, make_optimizer
from shortcut_models.runlog import RunLog, check_finite
from shortcut_models.state import State, init_state, metric_names, restore, shapes_of, to_parts
from shortcut_models.train import compile_step, make_step, train


def saved_state(config: Config, folder: Path, step: int | None = None) -> State:
    """A checkpoint, the newest by default, on one device, whatever wrote it."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    layout = sharding.make_layout(shapes_of(config), "dp", config.model.stacked, mesh)
    with Checkpoints(folder / "checkpoints", keep=10) as checkpoints:
        return restore(checkpoints, step or last_saved(folder), layout)


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
    optimizer: Any = resumed.opt_state
    assert int(optimizer[0].count) == 8
    assert_same(resumed, expected)
    assert rows(folder) == rows(trained)
    assert len(fed) == 4
    dataset = batch_dataset(Digits().open(), tiny.batch_size, tiny.seed)
    for k, batch in enumerate(fed, start=4):
        assert_same(batch, dataset[k])


def test_a_finished_run_says_so_and_changes_nothing(
    tiny: Config, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    assert train(tiny, trained) == 0
    assert "is complete: step 8 of 8" in capsys.readouterr().err
    assert contents(trained) == before


def test_what_there_is_to_remark_of_the_data_is_said_once(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = iter((["one is odd"], ["one is odd", "another could not be read"]))
    monkeypatch.setattr(ArraySource, "remarks", lambda _: next(found), raising=False)
    train(replace(tiny, max_steps=1, save_interval=1), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("one is odd\n") == said.count("another could not be read\n") == 1
    assert said.index("one is odd") < said.index("compiling") < said.index("another could not be read")


def test_the_newest_checkpoints_are_kept(tiny: Config, trained: Path) -> None:
    assert tiny.keep == 2
    assert sorted(path.name for path in (trained / "checkpoints").iterdir() if path.is_dir()) == ["4", "8"]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def last_saved(folder: Path) -> int:
    """The newest checkpoint that has its final name."""
    return newest(folder / "checkpoints") or 0


def last_row(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def test_a_run_killed_and_then_stopped_ends_as_one_that_nobody_disturbed(
    tmp_path: Path, tiny: Config, tiny_flags: list[str], start_shortcut: Callable[..., subprocess.Popen[str]]
) -> None:
    folder, calm = tmp_path / "disturbed", tmp_path / "calm"
    # An interval of 3 leaves sums of metrics in the checkpoints.
    flags = [*tiny_flags, "--log-interval", 3, "--save-interval", 50]
    command = ["train", "digits", "--run-dir", folder, *flags, "--max-steps", 1_000_000]

    process = start_shortcut(*command)
    wait_until(lambda: 50 <= last_saved(folder) < last_row(folder) - 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = last_saved(folder)
    assert kept < last_row(folder)  # It was killed between saves.

    before, old = last_saved(folder), (folder / "metrics.jsonl").stat().st_ino
    process = start_shortcut(*command)
    # The file is written anew when the run goes on: only then do its rows come from this process.
    wait_until(lambda: (folder / "metrics.jsonl").stat().st_ino != old and last_row(folder) > before, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert f"going on from step {before} of" in said
    assert f"stopped and saved at step {last_saved(folder)}" in said
    assert "Traceback" not in said
    assert last_saved(folder) > before

    end = (last_saved(folder) // 3 + 2) * 3
    for run in (folder, calm):
        process = start_shortcut("train", "digits", "--run-dir", run, *flags, "--max-steps", end)
        assert process.wait() == 0, process.communicate()[1]
        process.communicate()
    assert last_saved(folder) == last_saved(calm) == end
    assert_same(saved_state(tiny, folder), saved_state(tiny, calm))
    assert rows(folder) == rows(calm)
    assert [row["step"] for row in rows(folder)] == list(range(3, end + 1, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tiny: Config, trained: Path, trained_copy: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Pixels, "encode", lambda *given: jnp.full(given[1]["image"].shape, value, jnp.float32))
        with pytest.raises(InputError, match=r"before step 10 \(the checkpoint of step 8 is kept\): train into"):
            train(replace(tiny, max_steps=16, data_threads=0), trained_copy)
    assert last_saved(trained_copy) == 8
    assert_same(saved_state(tiny, trained_copy), saved_state(tiny, trained))
    assert rows(trained_copy) == rows(trained)  # And no row is not a number.


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "error/d=1/2"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_whatever_number_is_not_finite_stops_the_run(name: str, value: float) -> None:
    whole = {"loss": 1.0, "gradient_norm": 2.0, "error/d=1/2": 3.0}
    check_finite(whole, 10, 8)
    with pytest.raises(InputError, match=r"before step 10 \(no checkpoint was written yet\)"):
        check_finite(whole | {name: value}, 10, 0)


def test_the_original_recipe_takes_a_step_from_what_the_seed_says(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, place = [], sharding.place_batch
    monkeypatch.setattr(sharding, "place_batch", lambda mesh, batch: place(mesh, fed.append(batch) or batch))
    config = replace(tiny, objective=ORIGINAL, max_steps=1, seed=7)
    assert train(config, tmp_path / "run") == 0
    (row,) = rows(tmp_path / "run")
    # The last layer starts at zero, so the first velocity is zero and the error is that of x1 - x0.
    images = Digits().open().arrays["image"]
    assert row["error/d=0"] == pytest.approx(1 + np.square(images / 127.5 - 1).mean(), rel=0.15)
    state = saved_state(config, tmp_path / "run")
    assert state.target is not None
    assert_same(fed[0], batch_dataset(Digits().open(), tiny.batch_size, 7)[0])
    first = tiny.model.init(jax.random.fold_in(jax.random.key(7), 0))["patch"]["kernel"]
    # One step of AdamW from there: by no more than the learning rate.
    assert np.abs(np.asarray(state.params["patch"]["kernel"]) - np.asarray(first)).max() < 1e-2


def test_a_process_reads_its_own_rows_as_bytes(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, read, fed = np.array([3, 4, 9]), [], []
    source = Digits().open()
    take = type(source).batch

    def place(_: Any, batch: dict[str, np.ndarray]) -> Any:
        fed.append(batch)
        raise InputError("enough")

    monkeypatch.setattr(sharding, "local_rows", lambda *_: own)
    monkeypatch.setattr(sharding, "place_batch", place)
    monkeypatch.setattr(type(source), "batch", lambda self, indices: take(self, read.append(indices) or indices))
    with pytest.raises(InputError, match="enough"):
        train(replace(tiny, data_threads=0), tmp_path / "run")
    whole = batch_dataset(source, tiny.batch_size, tiny.seed)[0]
    for name, array in fed[0].items():
        np.testing.assert_array_equal(array, whole[name][own])
    assert [len(indices) for indices in read] == [len(own), tiny.batch_size]
    # A byte a pixel crosses to the device.
    assert fed[0]["image"].dtype == np.uint8


def test_compiling_gives_back_what_it_took(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(startup, "give_back", lambda: given.append(None))
    take_steps(tiny, 1, 1)
    assert len(given) == 1


# --- One device or many


def layout_of(config: Config, devices: int = 8) -> sharding.Layout:
    mesh = sharding.make_mesh(jax.devices()[:devices])
    return sharding.make_layout(shapes_of(config), config.sharding, config.model.stacked, mesh)


def take_steps(config: Config, count: int, devices: int) -> tuple[list[float], State]:
    layout = layout_of(config, devices)
    state = jax.jit(partial(init_state, config), out_shardings=layout.placed)()
    step, encode = compile_step(config, layout), make_encode(config, layout)
    dataset = batch_dataset(config.data.open(), config.batch_size, config.seed)
    sums = [0.0]
    for index in range(count):
        batch = encode(sharding.place_batch(layout.mesh, dataset[index]), np.uint32(index))
        state = step(state, batch, np.uint32(index))
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
    layout = layout_of(replace(tiny, model=replace(tiny.model, depth=8), sharding="fsdp"))
    flat = jax.tree_util.tree_leaves_with_path(layout.placed)
    for (path, where), leaf in zip(flat, jax.tree.leaves(layout.shapes), strict=True):
        name = jax.tree_util.keystr(path)
        spread = [axis for axis, part in enumerate(where.spec) if part is not None]
        if "'blocks'" in name:
            assert 0 not in spread, name
        if "'kernel'" in name:
            assert len(spread) == 1, name
            assert math.prod(where.shard_shape(leaf.shape)) == leaf.size // 8, name


def test_dp_copies_the_whole_state(tiny: Config) -> None:
    layout = layout_of(tiny)
    assert set(jax.tree.leaves(layout.placed)) == {sharding.replicated(layout.mesh)}


def test_a_checkpoint_of_eight_fsdp_devices_loads_on_one(tiny: Config, trained: Path, tmp_path: Path) -> None:
    state = saved_state(tiny, trained)
    spread = jax.device_put(state, layout_of(replace(tiny, sharding="fsdp")).placed)
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


NETWORK = MLP(dimensions=2, hidden_size=8, depth=1, num_classes=4, frequencies=4)


@pytest.fixture(scope="module")
def points(tiny: Config) -> Config:
    """Settings for a step of NETWORK; flow matching, whose gradient takes few lines."""
    optimizer = Optimizer(learning_rate=0.1, weight_decay=0.5)
    return replace(tiny, data=Points(), model=NETWORK, objective=FlowMatching(), optimizer=optimizer)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch(jax.random.normal(jax.random.key(3), (16, 2)), jnp.arange(16) % 4)


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


def by_hand(config: Config, params: Any, batch: Batch, key: jax.Array) -> tuple[Any, jax.Array]:
    """Gradient of the mean loss, and the losses, straight from the objective."""

    def loss(params: Any) -> Any:
        result = config.objective(partial(NETWORK.apply, params), batch, key, Context(null_label=4))
        return result.per_example.mean(), result.per_example

    return jax.grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_step_is_one_update_along_the_mean_gradient_of_its_turns(points: Config, batch: Batch, turns: int) -> None:
    config = replace(points, accumulation=turns, seed=4)
    state = state_of(config)
    after = jax.jit(make_step(config))(state, batch, jnp.uint32(7))

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(4), 1), 7)
    keys = jax.random.split(key, 2) if turns == 2 else [key]
    parts = [Batch(batch.x1[k::turns], batch.label[k::turns]) for k in range(turns)]
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
    norm = optax.tree.norm(gradient)
    np.testing.assert_allclose(after.totals["loss"], [5 + float(losses.sum()), 2 + 16], rtol=1e-5)
    np.testing.assert_allclose(after.totals["gradient_norm"], [5 + float(norm), 2 + 1], rtol=1e-5)


@pytest.mark.parametrize("turns", [1, 4])
def test_every_image_counts_once_and_every_turn_is_told_what_was_seen_before(
    points: Config, batch: Batch, turns: int
) -> None:
    seen: list[tuple[np.ndarray, int]] = []

    class Watch(FlowMatching):
        def __call__(self, velocity: Any, batch: Any, key: Any, given: Any) -> Any:
            jax.debug.callback(lambda x, n: seen.append((np.asarray(x), int(n))), batch.x1, given.images)
            return super().__call__(velocity, batch, key, given)

    config = replace(points, objective=Watch(), accumulation=turns)
    jax.block_until_ready(jax.jit(make_step(config))(state_of(config), batch, jnp.uint32(3)))
    jax.effects_barrier()
    assert [len(part) for part, _ in seen] == [16 // turns] * turns
    assert {images for _, images in seen} == {48}
    np.testing.assert_array_equal(np.sort(np.concatenate([x for x, _ in seen]), axis=0), np.sort(batch.x1, axis=0))


@pytest.mark.parametrize(("decay", "makes"), [(None, "params"), (0.9, "ema"), (0.5, "target")])
def test_the_weights_that_make_the_targets_are_those_of_the_settings(
    points: Config, batch: Batch, decay: float | None, makes: str
) -> None:
    given: list[Any] = []

    class Watch(Shortcut):
        def __call__(self, velocity: Any, batch: Any, key: Any, context: Any) -> Any:
            given.append(getattr(context.target, "args", [None])[0])
            return super().__call__(velocity, batch, key, context)

    config = replace(points, objective=Watch(target_decay=decay))
    assert (init_state(config).target is not None) == (makes == "target")
    state = state_of(config, own_target=makes == "target")._replace(totals={"loss": jnp.zeros(2)})
    make_step(config)(state, batch, jnp.uint32(0))
    assert_same(given[-1], getattr(state, makes))


def test_the_seed_decides_the_first_weights_the_order_of_the_data_and_the_draws_of_a_step(
    points: Config, batch: Batch
) -> None:
    other = replace(points, seed=points.seed + 1)
    first, second = (init_state(config).params["hidden0"]["kernel"] for config in (points, other))
    assert np.abs(np.asarray(first - second)).max() > 0.01
    assert_same(init_state(points), init_state(points))
    orders = [batch_dataset(config.data.open(), 8, config.seed)[0]["label"] for config in (points, other)]
    assert (orders[0] != orders[1]).any()
    losses = [make_step(config)(state_of(config), batch, jnp.uint32(0)).totals["loss"][0] for config in (points, other)]
    assert abs(losses[0] - losses[1]) > 1e-3  # From the same weights and data: noise and times differ.
    again = make_step(points)(state_of(points), batch, jnp.uint32(1)).totals["loss"][0]
    assert abs(losses[0] - again) > 1e-3  # And so they do from step to step.


def test_the_logged_rate_is_the_one_that_the_logged_step_took(tiny: Config) -> None:
    logged: list[dict[str, float]] = []
    tracker: Any = SimpleNamespace(log=lambda step, row: logged.append({"step": step, **row}))
    rising = replace(tiny, optimizer=replace(tiny.optimizer, learning_rate=1.0, warmup_steps=8))
    with RunLog(rising, [tracker], 0) as log:
        for step in (2, 3, 8, 9):
            log.take(step, {name: jnp.ones(2) for name in metric_names(rising)}, keep=True)
            log.read()
    assert [row["step"] for row in logged] == [2, 3, 8, 9]
    # The first step takes an eighth of the peak already.
    np.testing.assert_allclose([row["learning_rate"] for row in logged], [2 / 8, 3 / 8, 1, 1], rtol=1e-6)


# --- What fits


def test_a_network_that_does_not_fit_the_data_is_refused(tiny: Config, points: Config) -> None:
    with pytest.raises(InputError, match=r"8 x 8 x 1, but the network takes 16 x 16 x 1.*--model.image-size 8"):
        check_fits(replace(tiny, model=replace(tiny.model, image_size=16)))
    with pytest.raises(InputError, match=r"items are 2, but the network takes 3: choose another --model"):
        check_fits(replace(points, model=replace(NETWORK, dimensions=3)))
    with pytest.raises(InputError, match=r"learns pairs of noise and sample, which these data do not have"):
        check_fits(replace(tiny, objective=Reflow()))
    check_fits(tiny)
    check_fits(points)


@pytest.mark.parametrize("classes", [3, 20])
def test_the_numbers_of_classes_must_be_equal_unless_every_label_is_dropped(tiny: Config, classes: int) -> None:
    model = DiT(image_size=8, channels=1, num_classes=classes)
    with pytest.raises(
        InputError, match=rf"10 classes, but model.num_classes is {classes}: set --model.num-classes 10, or .*dropout 1"
    ):
        check_fits(replace(tiny, model=model))
    check_fits(replace(tiny, model=model, objective=Shortcut(label_dropout=1.0)))
    # As long as the jumps keep their labels, those are read, and what is left to drop is said.
    with pytest.raises(InputError, match=r"10, or --objective\.bootstrap-dropout 1 to train without labels"):
        check_fits(replace(tiny, model=model, objective=Shortcut(label_dropout=1.0, bootstrap_dropout=False)))
