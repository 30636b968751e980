"""Saving and restoring a training state: the one module that knows Orbax.

Each save is a folder named after its step, written aside and then renamed, so that a crash at any
moment leaves the last whole one. The parts are separate, so that sampling reads only its weights.
"""

import logging
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from shortcut_models.errors import InputError

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports every save at length.


class Checkpoints:
    """The checkpoints of one run, newest `keep` of them; use as a context manager."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        policy: Any = ocp.training.preservation_policies.LatestN(keep)
        self._orbax = ocp.training.Checkpointer(
            str(folder.absolute()),
            save_decision_policy=_always(),
            preservation_policy=policy,
            cleanup_tmp_directories=jax.process_index() == 0,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._orbax.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        newest = self._orbax.latest
        return None if newest is None else int(newest.step)

    def save(self, step: int, parts: dict[str, Any]) -> None:
        """Copy the parts, pytrees of arrays, off the device and write them in the background.

        An error of an earlier save is raised here or by `wait`, never swallowed.
        """
        self._orbax.save_checkpointables_async(step, parts)

    def wait(self) -> None:
        """Return when everything saved so far is safely on disk."""
        self._orbax.wait()

    def load(self, step: int, shapes: dict[str, Any]) -> dict[str, Any]:
        """Read the parts named in `shapes`, placed by the shardings in there."""
        try:
            return self._orbax.load_checkpointables(step, shapes)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {self._orbax.directory}/{step} cannot be read ({_first_line(error)}): delete that "
                "folder to go on from the one before, or start anew in another run folder."
            ) from error


def agree(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(jax.numpy.asarray(flag)).any())


def _always() -> Any:
    return ocp.training.save_decision_policies.FixedIntervalPolicy(1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
