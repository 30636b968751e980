"""What a training does besides learning: once an interval, whatever disturbs it, and without a trace in the weights."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from shortcut_models import InputError, cli, sharding, visitors
from shortcut_models import evaluate as evaluation
from shortcut_models.checkpoint import load_newest
from shortcut_models.config import Config
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.data.points import Points
from shortcut_models.during import During
from shortcut_models.encoding import make_encode
from shortcut_models.metrics import saved
from shortcut_models.model import Model
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives import Context
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.state import shapes_of, to_parts
from shortcut_models.terminal import StopSignal
from shortcut_models.train import train
from shortcut_models.visits import crosses

EVERY = During(evaluate_every=48, evaluate_steps=(1, 2), evaluate_count=40, evaluate_guidance=2.0)
"""At steps 3 and 6 of eight; no other multiple of anything."""


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def measured(folder: Path) -> dict[int, dict[str, float]]:
    """Rows of evaluations by their step; each step once."""
    found = [row for row in rows(folder) if any("/steps=" in name for name in row)]
    assert len({row["step"] for row in found}) == len(found)
    return {row.pop("step"): row for row in found}


def learnt(folder: Path, config: Config) -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = to_parts(shapes_of(config))
    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
    found = load_newest(folder / "checkpoints", placed)
    assert found is not None
    return jax.device_get(found)


@pytest.fixture(scope="module")
def points(tiny: Config) -> Config:
    network = MLP(dimensions=2, hidden_size=8, depth=1, num_classes=4, frequencies=4)
    return replace(tiny, data=Points(), model=network, objective=FlowMatching(), save_interval=100)


@pytest.fixture(scope="module")
def calm(points: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert train(points, folder, "the command", EVERY) == 0
    return folder


def test_it_is_measured_at_each_interval_and_learns_the_same(points: Config, calm: Path, tmp_path: Path) -> None:
    assert list(measured(calm)) == [3, 6]
    alone = tmp_path / "alone"
    assert train(points, alone) == 0
    jax.tree.map(np.testing.assert_array_equal, learnt(calm, points), learnt(alone, points))
    plain = [row for row in rows(calm) if "loss" in row]
    for row, other in zip(plain, rows(alone), strict=True):
        assert row | {"images_per_second": 0} == other | {"images_per_second": 0}


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_the_numbers_are_those_of_evaluate(
    points: Config, weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert train(replace(points, max_steps=6), folder, "", replace(EVERY, evaluate_weights=weights)) == 0
    report = json.loads((folder / "evaluations" / "step-6.json").read_text())
    for guidance, found in (("1", report), ("2", report["guided"])):
        words = ["evaluate", str(folder), "--steps", "1,2" if guidance == "1" else "2", "--count", "40"]
        assert cli.main([*words, "--guidance", guidance, "--weights", weights]) == 0
        by_hand = json.loads((folder / "report.json").read_text())
        assert {name: found[name] for name in ("steps", "real", "ratio")} == {
            name: by_hand[name] for name in ("steps", "real", "ratio")
        }
    row = measured(folder)[6]
    assert row.pop("images") == 96
    assert row == {
        **{f"{name}/steps={steps}": value for steps in "12" for name, value in report["steps"][steps].items()},
        **{f"{name}/steps=2-guided": value for name, value in report["guided"]["steps"]["2"].items()},
    }
    capsys.readouterr()


class Killed(BaseException):
    """As a signal would end it."""


@pytest.mark.parametrize("asked", [False, True], ids=["killed", "stopped"])
def test_cut_short_at_any_chunk_it_goes_on_and_ends_the_same(
    points: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    monkeypatch.setattr(evaluation, "chunk_size", lambda shape: 16)  # noqa: ARG005
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert train(points, whole, "", EVERY) == 0  # Chunks of another size round otherwise.
    drawn: list[tuple[int, int, float, int]] = []
    sample = Model.sample
    left = [0]

    def count(model: Model, labels: Any, steps: int, guidance: float, seed: int, *, first: int, **other: Any) -> Any:
        if left[0] == 0 and not asked:
            raise Killed
        left[0] -= 1
        drawn.append((model.step, steps, guidance, first))
        return sample(model, labels, steps, guidance, seed, first=first, **other)

    monkeypatch.setattr(Model, "sample", count)
    if asked:
        monkeypatch.setattr(StopSignal, "asked", property(lambda _: left[0] <= 0))
        monkeypatch.setattr(StopSignal, "__init__", lambda stop: stop.__dict__.update(signal=15, _before={}))
    for _ in range(40):
        left[0] = 4
        try:
            if train(points, folder, "", EVERY) == 0:
                break
        except Killed:
            continue
    assert measured(folder) == measured(whole)
    jax.tree.map(np.testing.assert_array_equal, learnt(folder, points), learnt(whole, points))
    # Two visits, three sets, three chunks: each drawn once.
    assert len(drawn) == len(set(drawn)) == 18
    assert sorted(path.name for path in (folder / "evaluations").iterdir()) == ["step-3.json", "step-6.json"]


def test_a_number_that_was_not_told_is_told_without_being_measured_again(
    points: Config, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert train(replace(points, max_steps=6), folder, "", EVERY) == 0
    path = folder / "metrics.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"step": 6' not in line))
    monkeypatch.setattr(visitors, "measure_model", None)
    assert train(replace(points, max_steps=6), folder, "", EVERY) == 0
    assert measured(folder)[6] == measured(calm)[6]
    assert train(replace(points, max_steps=6), folder, "", EVERY) == 0
    assert list(measured(folder)) == [3, 6]


def test_figures_are_drawn_once_and_shown(points: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, shown = [], []

    def draw(model: Model, folder: Path, *, run: Path) -> list[Path]:
        drawn.append((model.step, sorted(folder.iterdir())))
        assert run == tmp_path / "run"
        (folder / "error.png").write_bytes(b"a picture")
        if len(drawn) == 1:
            raise Killed
        return [folder / "error.png"]

    monkeypatch.setattr(visitors, "draw_figures", draw)
    monkeypatch.setattr("shortcut_models.runlog.RunLog.show", lambda _, step, pictures: shown.append((step, pictures)))
    folder, during = tmp_path / "run", During(figures_every=64)
    with pytest.raises(Killed):
        train(points, folder, "", during)
    assert train(points, folder, "", during) == 0
    assert drawn == [(4, []), (4, []), (8, [])]
    places = [folder / "figures" / f"step-{step}" / "error.png" for step in (4, 8)]
    assert shown == [(4, {"error": places[0]}), (8, {"error": places[1]})]
    assert all(place.read_bytes() == b"a picture" for place in places)


def test_loss_valid_is_the_loss_of_a_held_out_batch_with_the_weights_in_training(
    points: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    config = replace(points, max_steps=4, log_interval=3)
    assert train(config, folder, "", During(validate_every=32)) == 0
    found = [row for row in rows(folder) if "loss_valid" in row]
    assert [(row["step"], row["images"]) for row in found] == [(2, 32), (4, 64)]
    layout = sharding.make_layout(shapes_of(config), "dp", (), sharding.make_mesh())
    params = learnt(folder, config)[1]["params"]
    held_out = batch_dataset(config.data.open("test"), 16, config.seed)[4]
    batch = make_encode(config, layout)(sharding.place_batch(layout.mesh, held_out), np.uint32(4))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 1), 4)
    given = Context(null_label=config.model.null_label)
    loss = config.objective(partial(config.model.apply, params), batch, key, given)
    assert found[-1]["loss_valid"] == pytest.approx(float(loss.per_example.mean()), rel=1e-5)


def test_intervals_are_counted_in_images() -> None:
    assert [step for step in range(13) if crosses(40, step, 16)] == [3, 5, 8, 10]
    assert [step for step in range(5) if crosses(16, step, 16)] == [1, 2, 3, 4]
    assert [step for step in range(5) if crosses(8, step, 16)] == [1, 2, 3, 4]
    assert not any(crosses(0, step, 16) for step in range(5))


@pytest.mark.parametrize(
    ("during", "message"),
    [
        (During(evaluate_every=16, metrics=("fid-paper",)), "the weights of Inception are not in"),
        (During(evaluate_every=16, metrics=("beauty",)), "metric 'beauty' is unknown"),
        (During(evaluate_every=16, evaluate_count=5), "--evaluate-count is 5, but measuring by balanced labels takes"),
        (During(evaluate_every=16, stats=Path("nowhere.npz")), "nowhere.npz"),
        (During(validate_every=16), "--validate-every needs a held-out split"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: During, message: str
) -> None:
    monkeypatch.delenv("SHORTCUT_INCEPTION", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=message):
        train(tiny, tmp_path / "run", "", during)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate_steps": (1, 1)}, "--evaluate-steps 1,1 must name one or more budgets, each once"),
        ({"evaluate_steps": ()}, "--evaluate-steps  must name one or more budgets"),
        ({"evaluate_steps": (4, 0)}, "--evaluate-steps is 0, but must be a whole number from 1 up"),
        ({"evaluate_guidance": math.nan}, "evaluate_guidance is nan, but must be a finite number"),
        ({"evaluate_every": -1}, "evaluate_every is -1"),
    ],
)
def test_intervals_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        During(**settings)


def test_the_command_line_reaches_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("shortcut_models.train.train", lambda *words: given.append(words) or 0)
    words = ["--run-dir", str(tmp_path), "--evaluate-every", "640", "--evaluate-steps", "1,8", "--metrics", "energy"]
    assert cli.main(["train", "points", *words, "--figures-every", "64", "--stats", "a.npz"]) == 0
    during = given[0][3]
    assert (during.evaluate_every, during.evaluate_steps, during.metrics) == (640, (1, 8), ("energy",))
    assert (during.figures_every, during.validate_every, during.stats) == (64, None, Path("a.npz"))
    assert cli.main(["train", "points", "--evaluate-steps", "1,x"]) == 2
    assert "--evaluate-steps 1,x must be whole numbers separated by commas: 'x' is not." in capsys.readouterr().err
