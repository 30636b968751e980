"""Where what was found out about large data is kept between runs: never in the data's own folder."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shortcut_models.files import whole_file


def cache_folder() -> Path:
    """`shortcut-models` in $XDG_CACHE_HOME, which is ~/.cache if it is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shortcut-models"


def remembered(kind: str, files: Sequence[Path], make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` gives, mapped from the cache if these files, by name, size and time, were seen before.

    Without a cache that can be written it is made every time.
    """
    digest = hashlib.sha256(kind.encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    path = cache_folder() / f"{kind}-{digest.hexdigest()[:32]}.npy"
    try:
        return np.load(path, mmap_mode="r").view(np.ndarray)
    except (OSError, ValueError, EOFError):
        pass  # Not there, or damaged: it is made again.
    made = make()
    try:
        with whole_file(path) as aside, aside.open("wb") as file:
            np.save(file, made)
    except OSError:
        pass
    return made
