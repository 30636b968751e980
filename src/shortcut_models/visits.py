"""What a training does besides learning, at intervals: a visitor is called with the step and the model of it.

Before a visit the step is saved, so that a kill loses none. A visit that was cut short goes on when the training does,
and one that was made is not repeated; the training itself draws nothing, and learns the same bytes with and without.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shortcut_models import sharding
from shortcut_models.checkpoint import agree
from shortcut_models.config import Config
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.during import During
from shortcut_models.encoding import Encode
from shortcut_models.errors import InputError
from shortcut_models.model import Model
from shortcut_models.runlog import RunLog
from shortcut_models.sharding import Layout
from shortcut_models.state import State
from shortcut_models.terminal import Progress, StopSignal
from shortcut_models.visitors import Visitor, make_visitors

Gradient = Callable[..., Any]
USUAL = 1000
"""Steps between losses of held-out batches, of data in files that have a validation split."""


class Visits:
    """All visitors of a training; raises InputError for what cannot be measured, before anything is compiled."""

    def __init__(
        self, config: Config, layout: Layout, during: During, folder: Path, command: str, gradient: Gradient
    ) -> None:
        self.during, self._config, self._layout = during, config, layout
        self.validation = Validation(config, layout, during.validate_every, gradient)
        self._visitors = make_visitors(config, during, folder, command)
        self._model: Model | None = None

    def due(self, step: int) -> bool:
        """Whether the training is to be visited after this step."""
        return any(crosses(visitor.every, step, self._config.batch_size) for visitor in self._visitors)

    def pending(self, step: int) -> bool:
        """Whether a visit of this step is due and not yet made."""
        return bool(self._waiting(step))

    def make(self, step: int, state: State, log: RunLog, stop: StopSignal) -> bool:
        """Make the visits of this step that are due and not yet made; False if asked to stop half-way."""
        waiting = self._waiting(step)
        if not waiting:
            return True
        model = self._model_of(step, state)
        with log.paused():
            for visitor in waiting:
                Progress.say(f"step {step}: {visitor.doing} ...")
                found = visitor(step, model, lambda: agree(stop.asked))
                if found is None:
                    return False
                log.tell(step, found.numbers)
                log.show(step, found.pictures)
        model.params = None  # The next step reuses the buffers.
        return True

    def _waiting(self, step: int) -> list[Visitor]:
        due = [visitor for visitor in self._visitors if crosses(visitor.every, step, self._config.batch_size)]
        # The first process has the files.
        first = jax.process_index() == 0
        return [visitor for visitor in due if agree(first and not visitor.made(step))]

    def _model_of(self, step: int, state: State) -> Model:
        """The model after this step, sampled in float32 on the devices of this process, as a loaded one is."""
        params = state.ema if self.during.evaluate_weights == "ema" else state.params
        params = sharding.local_copy(params, self._layout.mesh)
        if self._model is None:
            network, objective = self._config.model.exact(), self._config.objective
            data, weights = self._config.data.shows(), self.during.evaluate_weights
            self._model = Model(network, params, objective, data, step=step, weights=weights)
        else:
            self._model.put(params, step)
        return self._model


class Validation:
    """The loss of held-out batches, one an interval; batch and noise follow from the step.

    It is computed by the `gradient` of a training step. Raises InputError if the data have no held-out split, or one
    that does not fit.
    """

    def __init__(self, config: Config, layout: Layout, every: int | None, gradient: Gradient) -> None:
        data, self._config, self._layout = config.data, config, layout
        if every is None:
            every = USUAL * config.batch_size if hasattr(data, "path") and "validation" in data.splits else 0
        self._every = every
        if not every:
            return
        if data.held_out is None:
            raise InputError("--validate-every needs a held-out split, which these data do not have: leave it out.")
        rows = sharding.local_rows(layout.mesh, config.batch_size)
        self._stored = batch_dataset(data.open(data.held_out), config.batch_size, config.seed, rows)

        # The gradient is not asked for, so that it is not computed.
        loss = lambda state, batch, index: gradient(state, batch, index)[1]["loss"]  # noqa: E731
        self._sums = jax.jit(loss, out_shardings=sharding.replicated(layout.mesh))

    def due(self, step: int) -> bool:
        """Whether it is time after this step."""
        return bool(self._every) and crosses(self._every, step, self._config.batch_size)

    def loss(self, step: int, state: State, encode: Encode) -> float:
        """The mean loss of a held-out batch, encoded as the training encodes, with the weights in training."""
        batch = encode(sharding.place_batch(self._layout.mesh, self._stored[step]), np.uint32(step))
        with self._layout.scope():
            total, count = np.asarray(self._sums(state, batch, np.uint32(step)))
        return float(total / count)


def crosses(every: int, step: int, batch_size: int) -> bool:
    """Whether a multiple of `every` images, 0 being none, is reached by this step."""
    return every > 0 and step > 0 and step * batch_size // every > (step - 1) * batch_size // every
