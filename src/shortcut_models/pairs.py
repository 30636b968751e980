"""Making pairs: noise, and the sample that a trained network draws from it. `data.pairs` reads them.

Pair i is a function of the run, the steps, the guidance, the seed and i alone, so that an
interrupted `make_pairs` goes on where it stopped and ends with the same bytes.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from shortcut_models import catalogue, choice_json
from shortcut_models.data.base import Data
from shortcut_models.data.pairs import FORMAT, is_pairs, read_about
from shortcut_models.errors import InputError
from shortcut_models.files import naming, write_json

CHUNK = 256
"""Pairs between two notes of the progress; sampled in one batch, so that going on gives the same bytes."""


class Sampler(Protocol):
    """What is asked of a model: image i of a seed is the same, whichever call draws it."""

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); num_classes itself is the null label."""
        ...

    def noise(self, seed: int, first: int, count: int) -> np.ndarray:
        """The noise that images first, first + 1, ... of this seed start from."""
        ...

    def sample(
        self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int, batch_size: int
    ) -> np.ndarray:
        """Images first, first + 1, ... of this seed: their noise, and what noises them back, follow from (seed, i)."""
        ...


def make_pairs(
    model: Sampler,
    folder: Path,
    *,
    count: int,
    steps: int,
    guidance: float,
    seed: int,
    data: Data,
    about: dict[str, Any],
    labels: Literal["balanced", "none"] = "balanced",
) -> None:
    """Write `count` pairs sampled in `steps` steps, of the classes in turn or of none; go on if there are some already.

    `data` are those that the model was trained on: what they show is recorded, as are the plain
    values of `about`. Raises InputError if the folder holds something else, or pairs made with
    other settings.
    """
    if count < 1:
        raise InputError(f"count is {count}, but at least 1 pair must be made.")
    settings = {"count": count, "steps": steps, "guidance": guidance, "seed": seed, "labels": labels}
    settings["num_classes"] = model.num_classes
    settings = {"format": FORMAT, **about, "data": choice_json.to_json(catalogue.DATA, data.shows()), **settings}
    settings = json.loads(json.dumps(settings))  # As it is read back, to be compared.
    done, spent = _done(folder, settings)
    began = time.monotonic()
    with tqdm(total=count, initial=done, unit="pair", desc="making pairs") as bar:
        for first in range(done, count, CHUNK):
            rows = np.arange(first, min(first + CHUNK, count))
            asked = np.where(labels == "none", model.num_classes, rows % model.num_classes).astype(np.int32)
            noise = model.noise(seed, first, len(rows))
            x = model.sample(asked, steps, guidance, seed, first=first, batch_size=CHUNK)
            if not first:  # Only now: what the model refuses has left nothing.
                _make_arrays(folder, settings, (count, *x.shape[1:]))
            for name, array in (("label", asked), ("noise", noise), ("x", x)):
                _write(folder / f"{name}.npy", first, array)
            seconds = spent + time.monotonic() - began
            write_json(folder / "pairs.json", {**settings, "done": int(rows[-1]) + 1, "seconds": seconds})
            bar.update(len(rows))


def _write(path: Path, first: int, rows: np.ndarray) -> None:
    """Put rows into an array's file. By writing: on a full disk, a mapped page ends the program without a word."""
    array: np.memmap = np.load(path, mmap_mode="r")
    with naming(path), path.open("r+b") as file:
        file.seek(array.offset + first * array.strides[0])
        file.write(np.ascontiguousarray(rows, array.dtype).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _done(folder: Path, settings: dict[str, Any]) -> tuple[int, float]:
    """Number of pairs that are there, and the seconds that they took; raises InputError for others."""
    about: dict[str, Any] = {"done": 0, "seconds": 0.0}
    if is_pairs(folder):
        about = read_about(folder)
        lines = "".join(f"\n  {k}: {about.get(k)} there, {v} now" for k, v in settings.items() if about.get(k) != v)
        if lines:
            raise InputError(f"{folder} holds pairs made with other settings; choose another --out:{lines}")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists but holds no pairs: choose another --out, or empty it.")
    return about["done"], about["seconds"]


def _make_arrays(folder: Path, settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    """The files of `shape[0]` pairs, none of which is there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "pairs.json", {**settings, "done": 0, "seconds": 0.0})
    for name, kind, size in (("x", "<f4", shape), ("noise", "<f4", shape), ("label", "<i4", shape[:1])):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, size).flush()
