"""A training, its readers and its rivals, as processes of their own."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shortcut_models
from shortcut_models import InputError, runs
from shortcut_models.checkpoint import newest
from shortcut_models.config import Config
from shortcut_models.train import train


def wait_until(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_readers_do_not_disturb_a_training_that_hangs_up_nor_does_a_rival(
    tmp_path: Path, tiny: Config, tiny_flags: list[str], start_shortcut: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "run"
    flags = [*tiny_flags, "--save-interval", 1, "--keep", 1, "--max-steps", 1_000_000]
    process = start_shortcut("train", "digits", "--run-dir", folder, *flags)
    wait_until(lambda: newest(folder / "checkpoints"), process)

    found = []
    while len(set(found)) < 10:
        assert process.poll() is None, process.communicate()[1]
        found.append(shortcut_models.load(folder).step)
    assert found == sorted(found)
    with pytest.raises(InputError, match=f"{folder} is being trained by process {process.pid} on "):
        train(tiny, folder)
    assert process.poll() is None

    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGHUP
    step = shortcut_models.load(folder).step
    assert step >= found[-1]
    assert f"stopped and saved at step {step}; the same command continues." in said
    # Nothing came late, nothing was left.
    assert "Traceback" not in said
    assert "Exception" not in said
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "metrics.jsonl", "run.json"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [str(step)]
    (start,) = runs.read(folder)["starts"]
    assert (start["step"], start["process"]) == (0, process.pid)
    rows = [json.loads(row)["step"] for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(2, step + 1, 2))
