"""Two processes, joined over gloo, train what one does."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shortcut_models
from shortcut_models.evaluate import evaluate


def start_two(start: Callable[..., subprocess.Popen[str]], *words: object) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    joined = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    return [start(*words, **joined, JAX_PROCESS_ID=str(rank)) for rank in range(2)]


def test_two_processes_train_the_same_as_one(
    tmp_path: Path, trained: Path, tiny_flags: list[str], start_shortcut: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "run"
    processes = start_two(start_shortcut, "train", "digits", "--run-dir", folder, *tiny_flags)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said

    # Only the first process speaks and writes: every row is there once.
    assert "is complete: step 8" in said[0]
    assert "complete" not in said[1]
    assert "img" not in said[1]
    (start,) = json.loads((folder / "run.json").read_text())["starts"]
    assert start["device"].startswith("2 x")
    assert start["process"] == processes[0].pid
    assert not (folder / ".lock").exists()
    found, expected = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (folder, trained)
    )
    assert [row["step"] for row in found] == [2, 4, 6, 8]
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        names = sorted(row.keys() - {"images_per_second"})
        np.testing.assert_allclose([row[n] for n in names], [other[n] for n in names], rtol=2e-3, err_msg=str(names))
        np.testing.assert_allclose(row["error/d=0"], other["error/d=0"], rtol=1e-5)

    # What two wrote, one reads.
    two, one = shortcut_models.load(folder), shortcut_models.load(trained)
    assert two.step == 8
    np.testing.assert_allclose(two.sample([0, 1, 2], steps=2), one.sample([0, 1, 2], steps=2), atol=2e-3)


def test_two_processes_measure_what_one_does(
    tmp_path: Path, start_shortcut: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "run"
    sizes = ["--max-steps", 4, "--batch-size", 16, "--model.hidden-size", 16]
    during = ["--evaluate-every", 32, "--evaluate-steps", "1,2", "--evaluate-count", 101, "--validate-every", 32]
    flags = [*sizes, *during, "--sharding", "fsdp", "--log-interval", 4]
    processes = start_two(start_shortcut, "train", "points", "--run-dir", folder, *flags)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss_valid" in row] == [2, 4]
    assert [row["step"] for row in rows if "energy-101/steps=1" in row] == [2, 4]
    found = json.loads((folder / "evaluations" / "step-4.json").read_text())
    # An odd number of samples: the second process has one less, and the order is that of one.
    model = shortcut_models.load(folder)
    alone = evaluate(model, model.data, [1, 2], 101).report
    for steps in ("1", "2"):
        assert found["steps"][steps] == pytest.approx(alone["steps"][steps], rel=1e-4)
    assert found["real"] == alone["real"]
    assert sorted(path.name for path in (folder / "evaluations").iterdir()) == ["step-2.json", "step-4.json"]

    (tmp_path / "arrays").mkdir()
    made = tmp_path / "arrays" / "report.json"
    words = ["evaluate", folder, "--steps", "1,2", "--count", 101, "--out", made]
    processes = start_two(start_shortcut, *words)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for steps in ("1", "2"):
        assert json.loads(made.read_text())["steps"][steps] == pytest.approx(alone["steps"][steps], rel=1e-4)
