"""Pairs of noise and sample that a trained network made: the data set of reflow.

A folder with pairs.json (where they come from, and how many are done) and three memory-mapped
arrays. Pair i is a function of the run, the steps, the guidance, the seed and i alone, so that an
interrupted `make_pairs` goes on where it stopped and ends with the same bytes.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from shortcut_models import sampling
from shortcut_models.errors import InputError
from shortcut_models.files import write_json
from shortcut_models.model import Model

FORMAT = 1
CHUNK = 256
"""Pairs between two notes of the progress; sampled in one batch, so that going on gives the same bytes."""


class Pairs:
    """The seam of a source, with "noise" as the other half of each pair.

    Images and noise are float32 (H, W, C) in the network's range. Raises InputError if the folder
    holds no pairs, or not yet all.
    """

    def __init__(self, folder: Path) -> None:
        about = read_about(folder)
        if about["done"] < about["count"]:
            raise InputError(
                f"{folder} holds {about['done']} of {about['count']} pairs: run the command that makes them again."
            )
        self.num_classes = int(about["num_classes"])
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "noise", "label")}
        height, width, channels = self._arrays["image"].shape[1:]
        self.image_shape = (height, width, channels)

    def __len__(self) -> int:
        return len(self._arrays["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: array[index] for name, array in self._arrays.items()}


def is_pairs(name: str) -> bool:
    """Whether a data set's name is a folder of pairs."""
    return (Path(name) / "pairs.json").exists()


def read_about(folder: Path) -> dict[str, Any]:
    """pairs.json; raises InputError if it is missing, damaged or of another version."""
    path = folder / "pairs.json"
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} holds no pairs: make them with `shortcut pairs RUN --out {folder}`.") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): remove {folder}, and make the pairs anew.") from error
    if about.get("format") != FORMAT:
        raise InputError(f"{path} has format {about.get('format')}, but this version reads {FORMAT}: make them anew.")
    return about


def make_pairs(model: Model, folder: Path, count: int, steps: int, guidance: float, seed: int, about: dict) -> None:
    """Write `count` pairs, labels in turn, sampled in `steps` steps; go on if there are some already.

    `about`, plain values, is kept with them. Raises InputError if the folder holds something else,
    or pairs made with other settings.
    """
    if count < 1:
        raise InputError(f"count is {count}, but at least 1 pair must be made.")
    settings = {"count": count, "steps": steps, "guidance": guidance, "seed": seed, "num_classes": model.num_classes}
    settings = {"format": FORMAT, **about, **settings}
    done, spent = _start(folder, settings, (count, *model.network.shape))
    began = time.monotonic()
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("image", "noise", "label")}
    with tqdm(total=count, initial=done, unit="pair", desc="making pairs") as bar:
        for first in range(done, count, CHUNK):
            rows = np.arange(first, min(first + CHUNK, count))
            noise = sampling.noise(seed, jnp.asarray(rows), model.network.shape)
            labels = rows % model.num_classes
            arrays["noise"][rows], arrays["label"][rows] = noise, labels
            arrays["image"][rows] = model.sample(labels, steps, guidance, noise=noise, batch_size=CHUNK)
            for array in arrays.values():
                array.flush()
            seconds = spent + time.monotonic() - began
            write_json(folder / "pairs.json", {**settings, "done": int(rows[-1]) + 1, "seconds": seconds})
            bar.update(len(rows))


def _start(folder: Path, settings: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, float]:
    """Number of pairs that are there, and the seconds that they took; makes the arrays if there are none."""
    if is_pairs(str(folder)):
        about = read_about(folder)
        lines = "".join(f"\n  {k}: {about.get(k)} there, {v} now" for k, v in settings.items() if about.get(k) != v)
        if lines:
            raise InputError(f"{folder} holds pairs made with other settings; choose another --out:{lines}")
        return about["done"], about["seconds"]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists but holds no pairs: choose another --out, or empty it.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind, size in (("image", "<f4", shape), ("noise", "<f4", shape), ("label", "<i4", shape[:1])):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, size).flush()
    write_json(folder / "pairs.json", {**settings, "done": 0, "seconds": 0.0})
    return 0, 0.0
