"""The training loop itself, on the digits: batches read, metrics told, nothing saved; or with a choice undone."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from benchmarks.speed.measure import Training, config
from shortcut_models import runs, sharding, train
from shortcut_models.data import open_source
from shortcut_models.terminal import StopSignal

READ_BETWEEN = "the loop: batches read between the steps, not ahead"
READ_AT_ONCE = "the loop: metrics read at once, not one step late"
WAITED = "the loop: every step waited for"
UNDONE = (READ_BETWEEN, READ_AT_ONCE, WAITED)

WARM, STEPS = 4, 20


class Loop:
    """`take_steps` on the demo's network and data; calling it takes the next WARM + STEPS steps."""

    def __init__(self, undo: str = "", **model: Any) -> None:
        plain = config("digits", **model)
        self.training, self.undo, self.index = Training(plain), undo, 0
        # Metrics ten times as often as a run of the program tells them, so that a few steps show their price.
        threads = 0 if undo == READ_BETWEEN else plain.data_threads
        self.config = replace(plain, log_interval=10, save_interval=10**9, data_threads=threads)
        self.folder = tempfile.TemporaryDirectory()
        runs.create_or_check(Path(self.folder.name), self.config, "")
        self.source, self.mesh = open_source(plain.dataset_name), sharding.make_mesh(jax.devices()[:1])
        self.began = self.ended = 0.0

    def __call__(self) -> float:
        """Seconds of one of STEPS steps."""
        start, self.index = self.index, self.index + WARM + STEPS
        given = replace(self.config, max_steps=self.index)
        placed = sharding.state_sharding(self.mesh, self.training.state, given.sharding)
        state = self.training.state
        checkpoints: Any = self
        with ExitStack() as patched:
            patched.enter_context(mock.patch.object(train, "compile_step", lambda *_, **__: self.step))
            if self.undo == READ_AT_ONCE:
                patched.enter_context(mock.patch.object(train.Report, "take", _read_at_once(train.Report.take)))
            trackers = patched.enter_context(runs.trackers(Path(self.folder.name), given, start))
            train.take_steps(given, trackers, self.source, self.mesh, placed, state, start, checkpoints, StopSignal())
        return (self.ended - self.began) / STEPS

    def step(self, state: Any, batch: Any, index: Any) -> Any:
        """The compiled step; the clock starts before the first that counts."""
        if int(index) == self.index - STEPS:
            jax.block_until_ready(state)
            self.began = time.perf_counter()
        self.training.state = self.training.compiled(state, batch, index)
        return jax.block_until_ready(self.training.state) if self.undo == WAITED else self.training.state

    def save(self, done: int, parts: Any) -> None:
        """Stands for the checkpoints: nothing is written, and the clock stops when the weights are there."""
        del done
        jax.block_until_ready(parts)
        self.ended = time.perf_counter()


def _read_at_once(take: Callable[..., None]) -> Callable[..., None]:
    def both(report: train.Report, *arguments: Any, **options: Any) -> None:
        take(report, *arguments, **options)
        report.read()

    return both
