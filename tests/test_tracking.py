"""Where the numbers go."""

import json
import sys
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


def test_tensorboard_gets_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    trackers = open_trackers(tmp_path, "tensorboard", 0, {})
    for tracker in trackers:
        tracker.log(2, {"loss": 0.5})
        tracker.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert "tfevents" in events.name
    assert b"loss" in events.read_bytes()
    assert steps(tmp_path / "metrics.jsonl") == [2]


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
        trackers = open_trackers(tmp_path, "wandb", start, {"seed": 1})
        for tracker in trackers:
            tracker.log(start + 2, {"loss": 0.5})
            tracker.close()
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
