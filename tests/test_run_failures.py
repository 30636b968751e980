"""Training in a bad world: other trainings, odd folders, full disks, services that say no, impatient people."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, cli, runs, sharding, starting, tracking
from shortcut_models import train as training
from shortcut_models.checkpoint import Checkpoints, newest
from shortcut_models.codecs import pixels
from shortcut_models.config import Config
from shortcut_models.runlog import check_finite
from shortcut_models.train import train


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def unfinished(trained_copy: Path) -> Path:
    """A run of `tiny` that was stopped at step 4."""
    shutil.rmtree(trained_copy / "checkpoints" / "8")
    return trained_copy


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Have something happen when the batch after so many others is placed."""

    def arrange(count: int, happens: Callable[[], object]) -> None:
        place, placed = sharding.place_batch, []

        def counted(*given: Any) -> Any:
            placed.append(None)
            if len(placed) == count:
                happens()
            return place(*given)

        monkeypatch.setattr(sharding, "place_batch", counted)

    return arrange


# --- Two trainings in one folder


def test_the_second_training_in_a_folder_names_the_first_and_touches_nothing(
    tiny: Config, unfinished: Path, capsys: pytest.CaptureFixture[str], tiny_flags: list[str]
) -> None:
    code = f"""
import sys
from pathlib import Path
from shortcut_models.files import hold
with hold(Path({str(unfinished / ".lock")!r})):
    print("in", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        before = contents(unfinished)
        assert cli.main(["train", "digits", "--run-dir", str(unfinished), *tiny_flags]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{unfinished} is being trained by process {first.pid} on {os.uname().nodename}, since" in err
        assert len(err.splitlines()) == 1
        assert contents(unfinished) == before
        assert shortcut_models.load(unfinished).step == 4  # Readers are not kept out.
        first.kill()
    assert train(tiny, unfinished) == 0  # The lock died with its process.
    assert not (unfinished / ".lock").exists()


def test_a_refused_run_leaves_no_folder(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        train(replace(tiny, start_from=str(tmp_path / "nowhere")), tmp_path / "runs" / "new")
    with pytest.raises(InputError, match="holds a backslash"):
        train(tiny, tmp_path / "back\\slash" / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file, but a folder is needed: choose another"):
        train(tiny, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- Folders in the wild


def test_a_run_folder_of_any_name_trains_goes_on_and_is_read(tiny: Config, tmp_path: Path, trained: Path) -> None:
    folder = tmp_path / "sweep [lr=*?]" / " ünï, a." / "run[0]"
    assert train(replace(tiny, max_steps=4), folder) == 0
    assert train(tiny, folder, "again") == 0
    assert [start["step"] for start in runs.read(folder)["starts"]] == [0, 4]
    model, expected = shortcut_models.load(folder), shortcut_models.load(trained)
    assert model.step == 8
    np.testing.assert_array_equal(
        model.params["final"]["linear"]["kernel"], expected.params["final"]["linear"]["kernel"]
    )


def test_a_folder_that_vanishes_ends_the_training_and_stays_away(
    tiny: Config, unfinished: Path, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(2, lambda: shutil.rmtree(unfinished))
    with pytest.raises(InputError, match=r"no such file or directory \(no checkpoint was written yet\)") as caught:
        train(tiny, unfinished)
    assert str(unfinished) in str(caught.value)
    assert not unfinished.exists()


def test_a_full_disk_is_one_sentence_that_says_what_is_kept(
    tiny: Config, tiny_flags: list[str], unfinished: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def full(_: Checkpoints, step: int, *__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(unfinished / "checkpoints" / str(step)))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        assert cli.main(["train", "digits", "--run-dir", str(unfinished), *tiny_flags]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"shortcut: {unfinished}/checkpoints/8: no space left on device (the checkpoint of step 4 is kept): free some "
        "space and run the same command again."
    )
    assert train(tiny, unfinished) == 0  # The advice works.
    assert newest(unfinished / "checkpoints") == 8


def test_a_pipe_that_closes_ends_the_training_in_one_sentence(
    tiny: Config, unfinished: Path, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    def close() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    at_step(1, close)
    with pytest.raises(InputError, match=r"the output: broken pipe \(the checkpoint of step 4 is kept\)"):
        train(tiny, unfinished)
    assert not (unfinished / ".lock").exists()


# --- Services


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be compiled, read or drawn: it would have been for nothing."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this takes minutes on a large network")

    for name in ("compile_step", "restore"):
        monkeypatch.setattr(training, name, refuse)
    monkeypatch.setattr(starting, "to_start_from", refuse)


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("new", [True, False])
def test_a_service_without_a_key_is_refused_before_anything_is_compiled(
    tiny: Config, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    class UsageError(Exception):
        """One of the service's own."""

    def init(**_: Any) -> None:
        raise UsageError("api_key not configured (no-tty). call wandb.login(key=[your_api_key])\nmore lines")

    module: Any = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    folder = tmp_path / "new" if new else unfinished
    with pytest.raises(
        InputError, match=r"tracker 'wandb' does not work \(api_key not configured .*--tracker none"
    ) as e:
        train(replace(tiny, tracker="wandb"), folder)
    assert len(str(e.value).splitlines()) == 1
    assert not (folder / ".lock").exists()


@pytest.mark.usefixtures("not_compiled")
def test_a_service_that_is_not_installed_is_refused_before_anything_is_compiled(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="'wandb' is not installed"):
        train(replace(tiny, tracker="wandb"), tmp_path / "run")


def test_metrics_that_cannot_be_written_end_the_training(
    tiny: Config, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(unfinished / "metrics.jsonl"))

    monkeypatch.setattr(tracking.JsonLines, "log", full)
    with pytest.raises(
        InputError, match=r"metrics.jsonl: no space left on device \(the checkpoint of step 4 is kept\)"
    ):
        train(tiny, unfinished)


# --- Impatience


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_one_signal_saves_and_the_same_command_goes_on(
    tiny: Config, unfinished: Path, number: signal.Signals, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    at_step(2, lambda: signal.raise_signal(number))
    assert train(tiny, unfinished) == 128 + number
    assert newest(unfinished / "checkpoints") == 6
    assert train(tiny, unfinished) == 0


def test_a_second_signal_stops_at_once_and_saves_nothing(
    tiny: Config, trained: Path, unfinished: Path, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(2, twice)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, unfinished)
    assert newest(unfinished / "checkpoints") == 4
    assert not (unfinished / ".lock").exists()
    assert train(tiny, unfinished) == 0
    rows = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (trained, unfinished)]
    assert [[json.loads(row)["step"] for row in found] for found in rows] == [[2, 4, 6, 8]] * 2


# --- Numbers


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "error/d=0"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_number_may_stop_being_finite(name: str, value: float) -> None:
    finite = {"loss": 1.0, "gradient_norm": 3e38, "error/d=0": 0.0}
    check_finite(finite, 10, 8)
    with pytest.raises(InputError, match=r"before step 10 \(the checkpoint of step 8 is kept\)"):
        check_finite(finite | {name: value}, 10, 8)
    with pytest.raises(InputError, match=r"before step 1 \(no checkpoint was written yet\)"):
        check_finite({name: value}, 1, 0)


def test_a_loss_that_overflows_stops_the_run_before_it_is_saved(
    tiny: Config, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "to_network", lambda images: jnp.full(images.shape, 1e30))
    with pytest.raises(InputError, match=r"stopped being finite before step 6 \(the checkpoint of step 4 is kept\)"):
        train(replace(tiny, data_threads=0), unfinished)
    assert newest(unfinished / "checkpoints") == 4
    assert not (unfinished / ".lock").exists()


# --- After more training


def test_a_report_of_an_earlier_step_is_measured_again(
    trained_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later, aside = trained_copy / "checkpoints" / "8", tmp_path / "8"
    later.rename(aside)
    command = ["evaluate", str(trained_copy), "--steps", "1", "--count", "20"]
    measured = []
    for _ in range(2):
        assert cli.main(command) == 0
        measured.append(json.loads((trained_copy / "report.json").read_text()))
        if aside.exists():
            aside.rename(later)
    assert [report["protocol"]["step"] for report in measured] == [4, 8]
    assert measured[0]["steps"] != measured[1]["steps"]
    assert "measured before" not in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "measured before" in capsys.readouterr().out
