"""Several processes that do one thing together: each its share of the rows, which all then have."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from shortcut_models.errors import InputError
from shortcut_models.files import explained, hold, holder, make_folder, remove_empty


def share(count: int) -> tuple[slice, int]:
    """The rows of `count` that this process draws, and how many of them are its own.

    Equal parts, the last ones shorter; where nothing is left, a row is drawn for nothing, and none is its own.
    """
    size = -(-count // jax.process_count())
    start, stop = (min((jax.process_index() + turn) * size, count) for turn in (0, 1))
    return slice(min(start, count - 1), max(stop, min(start, count - 1) + 1)), stop - start


def join(rows: np.ndarray, count: int) -> np.ndarray:
    """All `count` rows, from the share that each process has; their order is that of the processes."""
    if jax.process_count() == 1:
        return rows
    size = -(-count // jax.process_count())
    padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return np.asarray(multihost_utils.process_allgather(padded)).reshape(-1, *rows.shape[1:])[:count]


def from_first(value: Any) -> Any:
    """What the first process has, numbers or arrays, on all of them."""
    return value if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(value)


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


@contextmanager
def alone(lock: Path, refusal: Callable[[str], str]) -> Iterator[None]:
    """Keep other programs out of what `lock` stands for; the first process holds it for all.

    Its folder is made, and goes again if nothing came of it. Raises InputError on every process: the `refusal` of who
    is there, or that the lock cannot be written.
    """
    refused: InputError | None = None
    with ExitStack() as stack:
        if is_first():
            try:
                with explained():
                    if lock.parent.exists() and not lock.parent.is_dir():
                        raise InputError(f"{lock.parent} is a file, but a folder is needed: choose another.")
                    stack.callback(remove_empty, make_folder(lock.parent))
                    if not stack.enter_context(hold(lock, wait=False)):
                        raise InputError(refusal(holder(lock)))
            except InputError as error:
                refused = error
        if from_first(np.bool_(refused is not None)):  # Else the others would wait for the first for ever.
            raise refused or InputError(f"the first process could not go on with {lock.parent}: see what it says.")
        yield
