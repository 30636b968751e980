"""How long until something happens: import, --help, the first step; and compile time against depth."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax

from benchmarks.speed.measure import Row, Training, config, ratio
from benchmarks.speed.peers import Peers
from shortcut_models import startup

RUNS = 3


def run(device: str, peers: Peers) -> list[Row]:
    """Seconds: medians of several fresh processes or compilations; of `train`, one, as only the first is the first."""
    del device, peers
    shortcut = ["-m", "shortcut_models.cli"]
    rows: list[Row] = [
        {"what": "python, importing nothing", "seconds": _median([sys.executable, "-c", ""])},
        {"what": "import jax", "seconds": _median([sys.executable, "-c", "import jax"])},
        {"what": "import shortcut_models", "seconds": _median([sys.executable, "-c", "import shortcut_models"])},
        {"what": "shortcut --help", "seconds": _median([sys.executable, *shortcut, "--help"])},
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--max-steps", "1", "--log-interval", "1"]
        kept = {startup.CACHE: str(Path(folder) / "cache")}
        for what in ("empty", "filled"):
            begin = ["train", "digits", *settings, "--run-dir", str(Path(folder) / what)]
            seconds = _once([sys.executable, *shortcut, *begin], **kept)
            rows.append({"what": f"train digits for one step and save, compilation cache: {what}", "seconds": seconds})
    return rows + _depth()


def _depth() -> list[Row]:
    """Compile time, scanned, taking turns so that a busy machine slows both."""
    jax.config.update("jax_enable_compilation_cache", False)
    times: dict[int, list[float]] = {2: [], 28: []}
    for _ in range(2):
        for depth, found in times.items():
            jax.clear_caches()
            found.append(Training(replace(config("digits", depth=depth, scan=True))).compile_seconds)
    rows: list[Row] = [
        {"what": f"trace and compile a training step, depth {depth}, scanned", "seconds": statistics.median(found)}
        for depth, found in times.items()
    ]
    return [*rows, {"what": "depth 28 against depth 2", "ratio": ratio(times[28], times[2])}]


def _median(command: list[str]) -> float:
    return statistics.median(_once(command) for _ in range(RUNS))


def _once(command: list[str], **env: str) -> float:
    began = time.perf_counter()
    inherited = {name: value for name, value in os.environ.items() if name != startup.ALLOCATOR}
    subprocess.run(command, env={**inherited, **env}, capture_output=True, check=True)
    return time.perf_counter() - began
