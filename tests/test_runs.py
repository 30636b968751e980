"""Run folders, whole and otherwise: one clear sentence for whatever is wrong, and nothing overwritten."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, cli, files, runs
from shortcut_models.checkpoint import Checkpoints
from shortcut_models.config import Config, from_json, to_json
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
    "missing": (lambda run: shutil.rmtree(run), "does not exist: give the --run-dir of a training run"),
    "empty": (empty, "is not a run folder: it holds no run.json"),
    "a file": (lambda run: (shutil.rmtree(run), run.write_text("")), "does not exist"),
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
        "has format 99, but this version of shortcut-models reads format 1: use the version that wrote it",
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
    with pytest.raises(InputError, match=r"checkpoint .*8 cannot be read .*delete that folder to go on from the one"):
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


def test_settings_that_do_not_decide_what_is_learnt_may_change(tiny: Config, trained_copy: Path) -> None:
    other = replace(tiny, sharding="fsdp", log_interval=5, save_interval=3, keep=1, data_threads=0, max_steps=9)
    runs.create_or_check(trained_copy, other, "again")
    assert runs.read(trained_copy)["config"] == to_json(other)
    assert runs.read(trained_copy)["command"] == "again"


def test_a_folder_with_other_things_in_it_is_not_taken(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists but holds no run: choose another --run-dir, or empty it"):
        train(tiny, tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}
