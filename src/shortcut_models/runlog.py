"""What a training run tells: the terminal and, on the first process, the trackers."""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from shortcut_models.config import Config
from shortcut_models.errors import InputError
from shortcut_models.optimizer import make_schedule
from shortcut_models.state import metric_names, read_totals
from shortcut_models.terminal import Progress
from shortcut_models.tracking import Tracker


class RunLog:
    """Tells a run's metrics to the terminal and, on the first process, to the trackers."""

    def __init__(self, config: Config, trackers: list[Tracker], start: int) -> None:
        self.saved = start
        """The last step that was saved."""
        self._size, self._names = config.batch_size, metric_names(config)
        self._schedule = make_schedule(config.optimizer)
        self._progress = Progress(start * config.batch_size, config.max_steps * config.batch_size)
        self._trackers = trackers
        self._waiting: tuple[int, dict[str, Array], bool] | None = None
        self._sent: tuple[int, Array] | None = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *given: Any) -> None:
        self._progress.__exit__(*given)

    def follow(self, done: int, totals: dict[str, Array]) -> None:
        """Note that step `done` was sent off, wait for the one before, and `read` what was noted of it.

        So the device always has a step to do, and never a queue of them, for which a request to stop would wait.
        """
        # A copy, because the next step takes the state's own buffers.
        before, self._sent = self._sent, (done, jnp.copy(totals["loss"]))
        if before is not None:
            jax.block_until_ready(before[1])
            self._progress.move(before[0] * self._size)
        self.read()

    def take(self, done: int, totals: dict[str, Array], keep: bool) -> None:
        """Note the metrics after step `done`, for `read` to tell; the trackers too if `keep`."""
        self._waiting = (done, totals, keep)

    def read(self) -> None:
        """Wait for what was noted, if anything, and tell it; raises InputError if training has diverged."""
        if self._waiting is None:
            return
        (done, totals, keep), self._waiting = self._waiting, None
        metrics = read_totals(totals, self._names)
        check_finite(metrics, done, self.saved)
        self._progress.update(done * self._size, metrics)
        rate = float(jnp.asarray(self._schedule(done - 1)))
        rates = {"learning_rate": rate, "images_per_second": self._progress.rate}
        for tracker in self._trackers if keep else ():
            tracker.log(done, {"images": done * self._size, **metrics, **rates})

    def tell(self, done: int, numbers: dict[str, float]) -> None:
        """Tell the trackers something else about step `done`, at once."""
        for tracker in self._trackers:
            tracker.log(done, {"images": done * self._size, **numbers})

    def paused(self) -> AbstractContextManager[None]:
        """While the training waits for something else."""
        return self._progress.paused()

    def show(self, done: int, pictures: dict[str, Path]) -> None:
        """Show the trackers pictures of step `done`."""
        for tracker in self._trackers:
            tracker.show(done, pictures)


def check_finite(metrics: dict[str, float], step: int, saved: int) -> None:
    """Raise InputError if training has diverged; nothing was saved since it did."""
    if not all(math.isfinite(value) for value in metrics.values()):
        last = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was written yet"
        raise InputError(
            f"the loss or the gradient stopped being finite before step {step} ({last}): train into another --run-dir, "
            "with a lower --optimizer.learning-rate, more --optimizer.warmup-steps, or --optimizer.clip-norm 1."
        )
