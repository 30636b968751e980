"""Run folders, whole and otherwise: one clear sentence for whatever is wrong, and nothing overwritten."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, cli, runs, starting
from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import FREE_TO_CHANGE, Config
from shortcut_models.config_json import from_json, to_json
from shortcut_models.data.points import Points
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.optimizer import Optimizer
from shortcut_models.train import train


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_run_json_says_how_to_repeat_the_run(tiny: Config, trained: Path) -> None:
    data = json.loads((trained / "run.json").read_text())
    assert data["format"] == runs.FORMAT
    assert from_json(data["config"]) == tiny == runs.read_config(trained)
    (start,) = data["starts"]
    assert start["step"] == 0
    assert start["command"] == "shortcut train digits"
    assert start["versions"]["jax"] == jax.__version__
    assert start["versions"]["numpy"] == np.__version__
    assert start["device"].startswith("8 x")
    assert (start["host"], start["process"]) == (socket.gethostname(), os.getpid())
    assert {"commit", "time"} <= start.keys()


def remove(name: str) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


SPOILT = {
    "missing": (lambda run: shutil.rmtree(run), "does not exist: name a run of `shortcut train`, or a model folder"),
    "empty": (empty, "is not a run folder: it holds no run.json"),
    "a file": (lambda run: (shutil.rmtree(run), run.write_text("")), "is empty: download or copy it again"),
    "no run.json": (remove("run.json"), "is not a run folder: it holds no run.json"),
    "no checkpoints": (remove("checkpoints"), "has no whole checkpoint yet"),
    "empty run.json": (lambda run: (run / "run.json").write_text(""), "run.json is damaged"),
    "half of run.json": (
        lambda run: (run / "run.json").write_text((run / "run.json").read_text()[:300]),
        "run.json is damaged",
    ),
    "a list": (lambda run: (run / "run.json").write_text("[]"), "run.json is damaged"),
    "not text": (lambda run: (run / "run.json").write_bytes(b"\xff\xfe\x00"), "run.json is damaged"),
    "other format": (
        lambda run: edit(run, format=99),
        "has format 99, but this version of shortcut-models reads format 1 and 2: use the version that wrote it",
    ),
    "other fields": (lambda run: edit(run, config={"seed": 1}), "does not describe a run of this version"),
    "no config": (lambda run: edit(run, config=None), "does not describe a run of this version"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_run_folder_is_told_in_one_sentence(
    trained_copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, sentence = SPOILT[name]
    spoil(trained_copy)
    before = contents(trained_copy)
    with pytest.raises(InputError) as caught:
        shortcut_models.load(trained_copy)
    assert sentence in str(caught.value)
    assert str(trained_copy) in str(caught.value)
    for command in ("sample", "evaluate"):
        assert cli.main([command, str(trained_copy)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("shortcut: ")
        assert len(err.splitlines()) == 1
    assert contents(trained_copy) == before


@pytest.mark.parametrize("name", ["half of run.json", "other format", "other fields", "no run.json"])
def test_training_does_not_go_on_in_a_spoilt_folder(tiny: Config, trained_copy: Path, name: str) -> None:
    SPOILT[name][0](trained_copy)
    before = contents(trained_copy)
    with pytest.raises(InputError):
        train(tiny, trained_copy)
    assert contents(trained_copy) == before


@pytest.mark.parametrize("harm", ["truncate", "delete"])
def test_a_damaged_checkpoint_is_told_in_one_sentence(trained_copy: Path, harm: str) -> None:
    part = trained_copy / "checkpoints" / "8" / "ema"
    assert part.is_dir()
    for path in sorted(part.rglob("*")):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) if harm == "truncate" else path.unlink()
    with pytest.raises(InputError, match=r"checkpoint .*8 is damaged .*delete that folder to go on from the one"):
        shortcut_models.load(trained_copy)
    # The advice works.
    shutil.rmtree(trained_copy / "checkpoints" / "8")
    assert shortcut_models.load(trained_copy).step == 4


def test_a_checkpoint_that_was_never_finished_does_not_count(trained: Path, trained_copy: Path) -> None:
    folder = trained_copy / "checkpoints"
    shutil.copytree(folder / "8", folder / "12.orbax-checkpoint-tmp")
    model = shortcut_models.load(trained_copy)
    assert model.step == 8
    expected = shortcut_models.load(trained)
    jax.tree.map(np.testing.assert_array_equal, model.params, expected.params)


def test_only_unfinished_checkpoints_are_no_checkpoint(trained_copy: Path) -> None:
    folder = trained_copy / "checkpoints"
    for step in (4, 8):
        (folder / str(step)).rename(folder / f"{step}.orbax-checkpoint-tmp")
    with pytest.raises(InputError, match="has no whole checkpoint yet: train it further first"):
        shortcut_models.load(trained_copy)


def test_reading_a_run_leaves_no_trace(trained_copy: Path) -> None:
    before = contents(trained_copy)
    shortcut_models.load(trained_copy)
    runs.read(trained_copy)
    assert contents(trained_copy) == before


def test_raw_and_averaged_weights_are_those_of_the_checkpoint(trained: Path) -> None:
    ema, raw = shortcut_models.load(trained), shortcut_models.load(str(trained), "raw")
    assert (ema.weights, raw.weights) == ("ema", "raw")
    with Checkpoints(trained / "checkpoints") as checkpoints:
        for name, model in (("ema", ema), ("params", raw)):
            shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), model.params)
            saved = checkpoints.load(8, {name: shapes})[name]
            jax.tree.map(np.testing.assert_array_equal, saved, model.params)
    kernel = [np.asarray(model.params["final"]["linear"]["kernel"]) for model in (ema, raw)]
    assert np.abs(kernel[0] - kernel[1]).max() > 1e-4


def test_settings_that_differ_are_listed_field_by_field(tiny: Config, trained_copy: Path) -> None:
    before = contents(trained_copy)
    other = replace(tiny, seed=7, max_steps=16, model=replace(tiny.model, depth=3))
    with pytest.raises(InputError) as caught:
        train(other, trained_copy)
    assert str(caught.value).splitlines() == [
        f"{trained_copy} holds a run with other settings; use those, or another --run-dir:",
        "  seed: 0 in the run, 7 now",
        "  model.depth: 2 in the run, 3 now",
    ]
    assert contents(trained_copy) == before


OTHERS: dict[str, Any] = {
    "max_steps": 9,
    "sharding": "fsdp",
    "log_interval": 5,
    "save_interval": 3,
    "keep": 1,
    "data_threads": 0,
    "tracker": "tensorboard",
    "data": Points(),
    "batch_size": 32,
    "seed": 1,
    "ema_decay": 0.8,
    "accumulation": 2,
    "start_from": "",
    "start_as": "sit",
    "start_optimizer": True,
    "model": MLP(),
    "objective": FlowMatching(),
    "optimizer": Optimizer(learning_rate=1.0),
}
"""Another value of every field."""


@pytest.mark.parametrize("name", OTHERS)
def test_a_field_may_change_if_it_does_not_decide_what_is_learnt(tiny: Config, trained_copy: Path, name: str) -> None:
    if name == "start_from":  # A run that was made of the other one, which is still there.
        edit(trained_copy, config=to_json(replace(tiny, start_from=str(trained_copy))))
    before, other = runs.read(trained_copy), replace(tiny, **{name: OTHERS[name]})
    if name in FREE_TO_CHANGE:
        runs.create_or_check(trained_copy, other, "again")
        assert runs.read(trained_copy)["config"] == to_json(other)
        assert runs.read(trained_copy)["config"] != before["config"]
        return
    with pytest.raises(InputError, match=f"other settings; .*:\n  {name}[.:]"):
        runs.create_or_check(trained_copy, other, "again")
    assert runs.read(trained_copy) == before


def test_every_field_was_changed() -> None:
    assert OTHERS.keys() == {field.name for field in fields(Config)}


# --- Who trained which part


def test_every_start_is_noted_with_the_step_that_it_goes_on_from(tiny: Config, trained_copy: Path) -> None:
    first = runs.read(trained_copy)["starts"]
    runs.create_or_check(trained_copy, tiny, "for nothing")  # The run is complete.
    assert runs.read(trained_copy)["starts"] == first
    for steps in (9, 10):
        runs.create_or_check(trained_copy, replace(tiny, max_steps=steps), f"to {steps}")
    starts = runs.read(trained_copy)["starts"]
    assert starts[:1] == first
    assert [(start["step"], start["command"]) for start in starts] == [
        (0, "shortcut train digits"),
        (8, "to 9"),
        (8, "to 10"),
    ]
    assert all(start.keys() == first[0].keys() for start in starts)


def first_form(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as format 1 had it."""
    config = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    config["dataset_name"] = config.pop("data")["kind"]
    for part, name in (("model", "kind"), ("objective", "averaging"), ("optimizer", "decayed")):
        del config[part][name]
    return config


def test_run_json_of_the_first_versions_is_read_and_continued(tiny: Config, trained: Path, trained_copy: Path) -> None:
    data = json.loads((trained / "run.json").read_text())
    begin = {name: data["starts"][0][name] for name in ("command", "commit", "versions", "device", "time")}
    first = {"format": 1, **begin, "config": first_form(data["config"])}
    (trained_copy / "run.json").write_text(json.dumps(first))
    # Such a run goes on with the averages that it began with.
    constant = replace(tiny, objective=replace(tiny.objective, averaging="constant"))
    assert runs.read_config(trained_copy) == constant
    assert runs.read(trained_copy)["starts"] == [{"step": 0, **begin}]
    assert shortcut_models.load(trained_copy).step == 8
    runs.create_or_check(trained_copy, replace(constant, max_steps=9), "again")
    starts = json.loads((trained_copy / "run.json").read_text())["starts"]
    assert starts[0] == {"step": 0, **begin}
    assert (starts[1]["step"], starts[1]["command"]) == (8, "again")


@pytest.mark.parametrize("where", ["starts", "beside"])
def test_a_run_of_another_format_names_the_version_that_wrote_it(trained_copy: Path, where: str) -> None:
    versions = {"versions": {"shortcut-models": "7.8"}}
    written = {"starts": [versions]} if where == "starts" else versions
    (trained_copy / "run.json").write_text(json.dumps({"format": 99, **written}))
    with pytest.raises(
        InputError, match=r"has format 99, but .* reads format 1 and 2: use the version that wrote it \(7.8\)"
    ):
        runs.read(trained_copy)


# --- The run that a run starts from


def test_a_run_may_start_from_one_that_only_computed_otherwise(tiny: Config, trained: Path) -> None:
    config = replace(tiny, start_from=str(trained))
    faster = replace(config.model, attention="cudnn", dtype="bfloat16", scan=False, remat=True)
    starting.check_start(replace(config, model=faster))
    with pytest.raises(InputError, match=r"holds another network; .*\n  model.qk_norm: True there, False here"):
        starting.check_start(replace(config, model=replace(faster, qk_norm=False)))


def started(run: Path, flow: str, tiny: Config) -> None:
    """A run folder without checkpoints whose run.json names `flow` as the run that it started from."""
    run.mkdir(parents=True)
    begin = {"format": 1, "config": first_form(to_json(replace(tiny, start_from=flow))), "starts": []}
    (run / "run.json").write_text(json.dumps(begin))


def test_the_run_that_it_starts_from_is_stored_whole_and_means_the_same_from_anywhere(
    tiny: Config, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, run = tmp_path / "runs" / "flow", tmp_path / "runs" / "run"
    shutil.copytree(trained, flow)
    tiny = replace(tiny, objective=replace(tiny.objective, averaging="constant"))
    started(run, "runs/flow", tiny)  # As earlier versions stored it, seen from tmp_path.
    (tmp_path / "elsewhere").mkdir()
    for cwd, named in (("elsewhere", "../runs/flow"), (".", "runs/flow"), ("runs", "flow"), ("/", str(flow))):
        monkeypatch.chdir(tmp_path / cwd)
        config = runs.settle(replace(tiny, start_from=named))
        assert config.start_from == str(flow)
        runs.create_or_check(run, config, "go on")
        assert runs.read(run)["config"]["start_from"] == str(flow)
    shutil.copytree(flow, tmp_path / "other")
    other = runs.settle(replace(tiny, start_from=str(tmp_path / "other")))
    with pytest.raises(InputError, match=f"start_from: {flow} in the run, {tmp_path}/other now"):
        runs.create_or_check(run, other, "another teacher")
    # The one that it started from was moved: what was taken from it is in the checkpoints.
    shutil.rmtree(flow)
    runs.create_or_check(run, other, "moved")
    assert runs.read(run)["config"]["start_from"] == str(tmp_path / "other")


def test_no_path_stays_no_path(tiny: Config) -> None:
    assert runs.settle(tiny) == tiny


def test_a_folder_with_other_things_in_it_is_not_taken(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists but holds no run: choose another --run-dir, or empty it"):
        train(tiny, tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}
