"""Where the numbers go."""

import errno
import json
import os
import struct
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shortcut_models import InputError
from shortcut_models.tracking import JsonLines, TensorBoard, WandB, open_trackers


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_row_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonLines(path, 0)
    tracker.log(3, {"loss": 0.25, "error/d=1/2": 1e-7})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 3, "loss": 0.25, "error/d=1/2": 1e-7}
    ]
    tracker.close()


def test_rows_beyond_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in (2, 4, 6, 8)))
    tracker = JsonLines(path, 5)
    tracker.log(6, {"loss": 2.0})
    tracker.close()
    assert steps(path) == [2, 4, 6]
    assert json.loads(path.read_text().splitlines()[-1])["loss"] == 2.0
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("cut", ['{"step": 4, "lo', '{"step": 4', "4", '{"loss": 1.0}', "null", ""])
def test_a_row_that_a_kill_cut_short_is_dropped_on_resume(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "loss": 1.0}\n' + cut)
    tracker = JsonLines(path, 100)
    tracker.log(4, {"loss": 3.0})
    tracker.close()
    assert steps(path) == [2, 4]


def events(path: Path) -> list[Any]:
    """The events of a file of TensorBoard's: length, its checksum, the event, its checksum; and again."""
    from tensorboardX.proto.event_pb2 import Event  # pyrefly: ignore[missing-module-attribute] - made at import.

    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_tensorboard_gets_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    threads = threading.active_count()
    with open_trackers(tmp_path, "tensorboard", 4, {}) as trackers:
        for tracker in trackers:
            tracker.log(6, {"loss": 0.5, "error/d=1/2": 0.25})
        (file,) = (tmp_path / "tensorboard").iterdir()
        assert "tfevents" in file.name
        version, start, *scalars = events(file)  # On disk as soon as they are logged.
        assert threading.active_count() == threads  # A thread that writes would die of a full disk unseen.
    assert version.file_version.startswith("brain.Event:")
    assert (start.step, start.session_log.status) == (5, start.session_log.START)
    assert [(event.step, event.summary.value[0].simple_value) for event in scalars] == [(6, 0.5), (6, 0.25)]
    assert scalars[0].summary.value[0].tag == "loss"
    assert all(abs(event.wall_time - time.time()) < 600 for event in scalars)
    assert steps(tmp_path / "metrics.jsonl") == [6]


class FakeRun:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def define_metric(self, name: str, **options: Any) -> None:
        self.calls.append(("define_metric", name, options))

    def log(self, row: dict[str, Any]) -> None:
        self.calls.append(("log", row))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def wandb_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of a stand-in for the wandb package."""
    calls: list[Any] = []

    def init(**options: Any) -> FakeRun:
        calls.append(("init", options))
        return FakeRun(calls)

    module: Any = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_continues_the_run_whose_id_the_folder_keeps(tmp_path: Path, wandb_calls: list[Any]) -> None:
    for start in (0, 2):
        with open_trackers(tmp_path, "wandb", start, {"seed": 1}) as trackers:
            for tracker in trackers:
                tracker.log(start + 2, {"loss": 0.5})
    opened = [call[1] for call in wandb_calls if call[0] == "init"]
    assert opened[0]["id"] == opened[1]["id"] != ""
    assert all(options["resume"] == "allow" for options in opened)
    assert all(options["config"] == {"seed": 1} for options in opened)
    assert all(options["name"] == tmp_path.name for options in opened)
    assert [call[1] for call in wandb_calls if call[0] == "log"] == [
        {"step": 2, "loss": 0.5},
        {"step": 4, "loss": 0.5},
    ]
    assert wandb_calls.count(("finish",)) == 2
    # The step is ours: W&B's own may not go back, as ours does when a killed run resumes.
    assert ("define_metric", "*", {"step_metric": "step"}) in wandb_calls


def test_a_service_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"'wandb' is not installed: pip install 'shortcut-models\[wandb\]'"):
        WandB(tmp_path, {})
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"'tensorboard' is not installed: pip install .*\[tensorboard\]"):
        TensorBoard(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


# --- What goes wrong


def test_a_file_that_vanished_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonLines(path, 0)
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        tracker.log(1, {"loss": 1.0})
    assert caught.value.filename == str(path)
    tracker.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_told_when_a_row_is_logged_and_never_again(tmp_path: Path) -> None:
    tracker = JsonLines(tmp_path / "metrics.jsonl", 0)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, tracker._file.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left") as caught:
        tracker.log(1, {"loss": 1.0})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "metrics.jsonl"))
    tracker.close()


def test_rows_are_dropped_whole_or_not_at_all(tmp_path: Path) -> None:
    path, old = tmp_path / "metrics.jsonl", tmp_path / "old"
    path.write_text('{"step": 2}\n{"step": 4}\n')
    old.hardlink_to(path)  # Another name of the same file: it changes if that is written in place.
    JsonLines(path, 2).close()
    assert steps(path) == [2]
    assert steps(old) == [2, 4]


@pytest.mark.usefixtures("wandb_calls")
@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_service_that_fails_is_one_sentence_and_closes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no way in.\nSee the log.")  # In classes of its own, which need not be an OSError.

    monkeypatch.setattr(sys.modules["wandb"] if call == "init" else FakeRun, call, fail)
    opened: list[Any] = []
    with (
        pytest.raises(
            InputError,
            match=r"^tracker 'wandb' does not work \(no way in\): .*--tracker none, or in train\.py no --wandb\. ",
        ),
        open_trackers(tmp_path, "wandb", 0, {}) as trackers,
    ):
        opened += trackers
        for tracker in trackers:
            tracker.log(1, {"loss": 1.0})
    assert all(tracker._file.closed for tracker in opened if isinstance(tracker, JsonLines))


def test_the_id_of_a_run_that_was_cut_short_is_not_used(tmp_path: Path, wandb_calls: list[Any]) -> None:
    (tmp_path / "wandb-id.txt").write_text("")
    with open_trackers(tmp_path, "wandb", 0, {}):
        pass
    assert len(wandb_calls[0][1]["id"]) == 8
    assert (tmp_path / "wandb-id.txt").read_text() == wandb_calls[0][1]["id"]
