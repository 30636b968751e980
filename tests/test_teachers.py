"""Training from another run's weights, with a teacher, in stages, on pairs; stopped and continued."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from shortcut_models import pairs, sharding, weights
from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import Config
from shortcut_models.data.pairs import Pairs
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.reflow import Reflow
from shortcut_models.state import State, restore, shapes_of
from shortcut_models.train import train


def saved(config: Config, folder: Path, step: int) -> State:
    """A checkpoint, on one device."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    layout = sharding.make_layout(shapes_of(config), "dp", config.model.stacked, mesh)
    with Checkpoints(folder / "checkpoints", keep=50) as checkpoints:
        return jax.device_get(restore(checkpoints, step, layout))


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.fixture(scope="module")
def flow(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of flow matching, the first teacher."""
    folder = tmp_path_factory.mktemp("flow") / "run"
    assert train(replace(tiny, objective=FlowMatching(), max_steps=4), folder) == 0
    return folder


def started(flow: Path) -> Any:
    """What a training from the flow starts from: its averages, which answer the same for every step size."""
    model = weights.load(flow)
    return model.network.without_step(model.params)


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
    first = started(flow)
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
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("at", [5, 7], ids=["just before a stage", "within a stage"])
def test_stopped_and_continued_it_ends_with_the_same_bytes(
    at: int, staged: Config, distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place, seen = tmp_path / "run", sharding.place_batch, []
    config = replace(staged, save_interval=100)  # So that it saves when it is stopped, and at the end.

    def stop(mesh: Any, batch: Any) -> Any:
        seen.append(batch)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return place(mesh, batch)

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "place_batch", stop)
        assert train(config, folder) == 130
    assert len(seen) == at
    assert train(config, folder) == 0
    assert same(saved(staged, folder, 13), saved(staged, distilled, 13))


@pytest.mark.parametrize("turns", [1, 2])
def test_a_stage_that_starts_at_a_batchs_edge_starts_there(
    turns: int, staged: Config, flow: Path, tmp_path: Path
) -> None:
    # Three stages over 96 images: at 32 and 64, which are the second and the fourth batch's end.
    objective = Progressive(total_images=96, levels=8)
    config = replace(staged, objective=objective, max_steps=6, accumulation=turns, log_interval=1)
    assert train(config, tmp_path / "run") == 0
    states = {step: saved(config, tmp_path / "run", step) for step in range(1, 7)}
    for step, state in states.items():
        expected = started(flow) if step <= 2 else states[2].ema if step <= 4 else states[4].ema
        assert same(state.teacher, expected), step
    sizes = [[name for name in row if name.startswith("error/")] for row in _rows(tmp_path / "run")]
    assert sizes == [[f"error/d={d}"] for d in ("1/4", "1/4", "1/2", "1/2", "1", "1")]


def test_reflow_trains_on_pairs(tiny: Config, flow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    pairs.make_pairs(
        weights.load(flow), folder, count=32, steps=2, guidance=1.5, seed=3, data=tiny.data, about={"run": str(flow)}
    )
    config = replace(tiny, data=Pairs(path=str(folder)), objective=Reflow(), max_steps=2, start_from=str(flow))
    assert train(config, tmp_path / "run") == 0
    model = weights.load(tmp_path / "run")
    assert model.data == tiny.data  # What the pairs show.
    # Pair i is the sample of its noise, from the same run.
    source = config.data.open()
    x0, label = (np.stack([source[i][name] for i in range(20, 30)]) for name in ("noise", "label"))
    again = weights.load(flow).sample(label, steps=2, guidance=1.5, noise=x0)
    np.testing.assert_allclose(np.stack([source[i]["x"] for i in range(20, 30)]), again, atol=1e-5)


def test_consistency_training_runs_through_its_stages(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, objective=Consistency(total_images=128, levels=4))
    assert train(config, tmp_path / "run") == 0
    names = {name for row in _rows(tmp_path / "run") for name in row if name.startswith("error/")}
    assert names == {"error/d<=1", "error/d<=1/2"}
