"""An evaluation in progress, kept in a folder, so that one that is killed goes on and ends with the same numbers.

Samples follow from their indices and are measured in chunks of a fixed size: whoever goes on at the edge of a chunk
adds up the same numbers in the same order.
"""

import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models import processes
from shortcut_models.errors import InputError
from shortcut_models.files import whole_file
from shortcut_models.metrics.base import Arrays, Metric
from shortcut_models.metrics.measure import Measurement

SECONDS = 20.0
"""Between two savings: what a kill loses."""


class Saved:
    """What is known already; nothing, without a folder or if another evaluation lies there."""

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self.folder, self._key = folder, json.dumps(key)
        self.found: dict[str, dict[str, float]] = {}
        self.shown: dict[int, np.ndarray] = {}
        self._state: Arrays = {}
        self._last = time.monotonic()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._read(folder / "state.npz")

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                state = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return  # Not there yet, or cut short: then it starts from nothing.
        if str(state.get("key")) != self._key:
            return
        self.found = json.loads(str(state["found"]))
        self.shown = {int(name[6:]): array for name, array in state.items() if name.startswith("shown ")}
        self._state = state

    def measurement(self, metrics: Sequence[Metric], name: str) -> tuple[Measurement, int]:
        """The measurement of a set of samples, and how many of them it has seen."""
        state, self._state = self._state, {}
        if state and str(state["name"]) == name:
            known = Measurement(metrics, self.folder)
            if known.restore({name[9:]: array for name, array in state.items() if name.startswith("measured ")}):
                return known, known.count
        return Measurement(metrics, self.folder), 0

    def keep(self, name: str, measurement: Measurement | None, now: bool = False) -> None:
        """Save, if the last time is a while ago, a set is finished (no measurement), or it is to be `now`."""
        early = measurement is not None and not now and time.monotonic() - self._last < SECONDS
        if self.folder is None or early:
            return
        self._last = time.monotonic()
        measured = measurement.state() if measurement else {}
        arrays: dict[str, Any] = {
            "key": np.array(self._key),
            "found": np.array(json.dumps(self.found)),
            "name": np.array(name),
            **{f"shown {name}": array for name, array in self.shown.items()},
            **{f"measured {name}": array for name, array in measured.items()},
        }
        with whole_file(self.folder / "state.npz") as aside, aside.open("wb") as file:
            np.savez(file, **arrays)

    def remove(self) -> None:
        """Leave nothing behind of an evaluation that is over."""
        if self.folder is not None:
            for path in (self.folder / "state.npz", *self.folder.glob("rows-*.f32")):
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


@contextmanager
def saved_in(folder: Path | None, key: dict[str, Any]) -> Iterator[Saved]:
    """What is known already, on the first process; nobody else's evaluation comes in meanwhile.

    Nothing is left behind of what is refused before anything was saved; what was saved is kept, to go on from.
    Raises InputError if another program is evaluating there: it would cut this one's numbers.
    """
    if folder is None:
        yield Saved(None, key)
        return

    def refusal(who: str) -> str:
        return f"{folder.parent} is being evaluated by {who}: wait for it, or write to another place with --out."

    with processes.alone(folder.with_name(f"{folder.name}.lock"), refusal):
        saved = Saved(folder if processes.is_first() else None, key)
        try:
            yield saved
        except InputError:
            if not (folder / "state.npz").exists():
                saved.remove()
            raise
