"""Training from another run's weights, with a teacher, in stages, on pairs; stopped and continued."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models import InputError, cli, runs, sharding
from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import Config
from shortcut_models.data import open_source, origin
from shortcut_models.data import pairs as pairs_module
from shortcut_models.data.pairs import Pairs, make_pairs
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.objectives import Consistency, FlowMatching, Progressive, Reflow
from shortcut_models.sampling import noise
from shortcut_models.train import State, init_state, restore, train


def saved(config: Config, folder: Path, step: int) -> State:
    """A checkpoint, on one device."""
    shapes = jax.eval_shape(partial(init_state, config))
    placed = sharding.state_sharding(sharding.make_mesh(jax.devices()[:1]), shapes, "dp")
    with Checkpoints(folder / "checkpoints", keep=50) as checkpoints:
        return jax.device_get(restore(checkpoints, step, shapes, placed))


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.fixture(scope="module")
def flow(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of flow matching, the first teacher."""
    folder = tmp_path_factory.mktemp("flow") / "run"
    assert train(replace(tiny, objective=FlowMatching(), max_steps=4), folder) == 0
    return folder


@pytest.fixture(scope="module")
def staged(tiny: Config, flow: Path) -> Config:
    """Three stages over 200 images in batches of 16: they start at 67 and 134 images, in the midst of a batch."""
    objective = Progressive(total_images=200, levels=8)
    return replace(tiny, objective=objective, max_steps=13, save_interval=1, keep=50, start_from=str(flow))


@pytest.fixture(scope="module")
def distilled(staged: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilled") / "run"
    assert train(staged, folder) == 0
    return folder


def test_the_network_becomes_the_teacher_at_the_first_batch_that_starts_in_a_stage(
    staged: Config, distilled: Path, flow: Path
) -> None:
    states = {step: saved(staged, distilled, step) for step in range(1, 14)}
    first = runs.load(flow).params
    for step, state in states.items():
        # Before the batches 5 (80 images seen, 67 asked for) and 9 (144 and 134).
        expected = first if step <= 5 else states[5].ema if step <= 9 else states[9].ema
        assert same(state.teacher, expected), step
        assert not same(state.params, state.ema)
    assert not same(states[5].ema, first)
    errors = {row["step"]: set(row) for row in _rows(distilled)}
    assert "error/d=1/4" in errors[2]  # Logged for steps 1 and 2.
    assert {"error/d=1/4", "error/d=1/2"} <= errors[6]
    assert "error/d=1" in errors[12]


def _rows(folder: Path) -> list[dict[str, float]]:
    import json

    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("at", [5, 7], ids=["just before a stage", "within a stage"])
def test_stopped_and_continued_it_ends_with_the_same_bytes(
    at: int, staged: Config, distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place, seen = tmp_path / "run", sharding.place_batch, []

    def stop(mesh: Any, batch: Any) -> Any:
        seen.append(batch)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return place(mesh, batch)

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "place_batch", stop)
        assert train(staged, folder) == 130
    assert len(seen) == at
    assert train(staged, folder) == 0
    assert same(saved(staged, folder, 13), saved(staged, distilled, 13))


def test_training_starts_from_the_averaged_weights_of_another_run(tiny: Config, trained: Path) -> None:
    config = replace(tiny, start_from=str(trained), seed=5)
    placed = jax.tree.map(lambda _: sharding.replicated(sharding.make_mesh()), runs.load(trained).params)
    weights = runs.start_weights(config, placed)
    assert weights is not None
    state = init_state(config, weights)
    expected = runs.load(trained, "ema").params
    for part in (state.params, state.ema, state.target):
        assert same(part, expected)
    assert state.teacher is None
    assert runs.start_weights(tiny, placed) is None


def test_what_training_cannot_start_from_is_told_in_a_sentence(
    tiny: Config, flow: Path, distilled: Path, tmp_path: Path
) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            train(replace(tiny, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused("run folder .*nowhere does not exist", start_from=str(tmp_path / "nowhere"))
    other = replace(tiny.model, hidden_size=32)
    refused(r"holds another network; .*\n  model.hidden_size: 16 there, 32 here", start_from=str(flow), model=other)
    staged = Progressive(total_images=128)
    refused("trained with progressive, which does not learn the velocity", start_from=str(distilled), objective=staged)


# --- Pairs


@pytest.fixture(scope="module")
def pairs(flow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "pairs"
    make_pairs(runs.load(flow), folder, count=300, steps=2, guidance=1.5, seed=3, about={"dataset": "digits"})
    return folder


def test_pairs_are_the_samples_of_the_noise_beside_them(pairs: Path, flow: Path) -> None:
    source = open_source(str(pairs))
    assert isinstance(source, Pairs)
    assert (len(source), source.image_shape, source.num_classes) == (300, (8, 8, 1), 10)
    some = [source[i] for i in range(290, 300)]
    x0 = np.stack([pair["noise"] for pair in some])
    np.testing.assert_array_equal(x0, noise(3, jnp.arange(290, 300), (8, 8, 1)))
    labels = np.array([pair["label"] for pair in some])
    np.testing.assert_array_equal(labels, np.arange(290, 300) % 10)
    again = runs.load(flow).sample(labels, steps=2, guidance=1.5, noise=x0)
    np.testing.assert_allclose(np.stack([pair["image"] for pair in some]), again, atol=1e-5)
    batch = batch_dataset(source, 4, seed=0)[0]
    for row in range(4):
        found = [i for i in range(300) if np.array_equal(source[i]["image"], batch["x1"][row])]
        assert len(found) == 1
        np.testing.assert_array_equal(batch["x0"][row], source[found[0]]["noise"])
    assert origin(str(pairs)) == "digits"
    assert origin("digits") == "digits"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


def test_interrupted_pairs_go_on_and_end_with_the_same_bytes(
    pairs: Path, flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, write = tmp_path / "pairs", pairs_module.write_json
    make: Callable[[], None] = lambda: make_pairs(runs.load(flow), folder, 300, 2, 1.5, 3, {"dataset": "digits"})  # noqa: E731

    def interrupted(path: Path, data: dict[str, Any]) -> None:
        if data["done"] == 300:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(pairs_module, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make()
    with pytest.raises(InputError, match=r"holds 256 of 300 pairs: run the command that makes them again"):
        Pairs(folder)
    make()
    assert "256/300" in capsys.readouterr().err
    assert contents(folder) == contents(pairs)
    make()  # Complete: nothing is done again.
    assert contents(folder) == contents(pairs)


def test_pairs_that_cannot_be_made_or_read_are_told_in_a_sentence(pairs: Path, flow: Path, tmp_path: Path) -> None:
    model = runs.load(flow)
    with pytest.raises(InputError, match=r"other settings; choose another --out:\n  steps: 2 there, 4 now"):
        make_pairs(model, pairs, 300, 4, 1.5, 3, {"dataset": "digits"})
    with pytest.raises(InputError, match="exists but holds no pairs"):
        make_pairs(model, flow, 300, 4, 1.5, 3, {})
    with pytest.raises(InputError, match="count is 0"):
        make_pairs(model, tmp_path / "new", 0, 4, 1.5, 3, {})
    assert not (tmp_path / "new").exists()
    (tmp_path / "pairs.json").write_text('{"format": 1,')
    with pytest.raises(InputError, match="is damaged"):
        Pairs(tmp_path)
    (tmp_path / "pairs.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="has format 2, but this version reads 1"):
        Pairs(tmp_path)
    with pytest.raises(InputError, match="holds no pairs: make them with `shortcut pairs RUN"):
        Pairs(tmp_path / "nowhere")


def test_reflow_trains_on_pairs_and_is_measured_by_what_the_pairs_show(
    tiny_flags: list[str], flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "pairs", tmp_path / "reflow"
    assert cli.main(["pairs", str(flow), "--out", str(out), "--count", "32", "--steps", "2"]) == 0
    words = tiny_flags[:-4]  # The last two are settings of the shortcut objective.
    command = ["train", "digits", "--objective", "reflow", "--dataset-name", str(out), "--start-from", str(flow)]
    assert cli.main([*command, *words, "--max-steps", "2", "--run-dir", str(run)]) == 0
    config = runs.read_config(run)
    assert isinstance(config.objective, Reflow)
    assert config.start_from == str(flow)
    assert cli.main(["evaluate", str(run), "--steps", "1", "--count", "16"]) == 0
    assert "frechet-pixels-16" in capsys.readouterr().out
    # Without pairs there is nothing that it could learn.
    assert cli.main([*command[:4], *words, "--run-dir", str(tmp_path / "none")]) == 2
    assert "reflow learns pairs of noise and sample" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_consistency_training_runs_through_its_stages(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, objective=Consistency(total_images=128, levels=4))
    assert train(config, tmp_path / "run") == 0
    names = {name for row in _rows(tmp_path / "run") for name in row if name.startswith("error/")}
    assert names == {"error/d<=1", "error/d<=1/2"}
