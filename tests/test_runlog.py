"""What a training tells of its steps, and how far ahead of them it is."""

import jax
import jax.numpy as jnp
import pytest

from shortcut_models.config import Config
from shortcut_models.runlog import RunLog


def test_no_more_than_one_step_is_under_way(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    # Or a stop, and what is saved then, would have to wait for a queue of them.
    waited: list[float] = []
    monkeypatch.setattr(jax, "block_until_ready", lambda array: waited.append(float(array[0])))
    with RunLog(tiny, [], 4) as log:
        for done in (5, 6, 7):
            totals = {"loss": jnp.array([done, 1.0])}
            log.follow(done, totals)
            totals["loss"].delete()  # As the next step does with the state's buffers.
            assert waited == list(range(5, done))
            assert log._progress._bar.n == tiny.batch_size * max(done - 1, 4)
