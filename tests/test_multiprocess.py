"""Two processes, joined over gloo, train what one does."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

import shortcut_models


def test_two_processes_train_the_same_as_one(
    tmp_path: Path, trained: Path, tiny_flags: list[str], start_shortcut: Callable[..., subprocess.Popen[str]]
) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "run"
    processes = [
        start_shortcut(
            *("train", "digits", "--run-dir", folder, *tiny_flags),
            JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(rank),
        )
        for rank in range(2)
    ]
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
