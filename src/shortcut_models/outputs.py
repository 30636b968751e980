"""What `shortcut sample` is asked for and what it leaves: labels in, image files out."""

import os
import shutil
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int, UInt8

from shortcut_models.errors import InputError
from shortcut_models.files import whole_file
from shortcut_models.pictures import draw_grid, to_image

Labels = Int[np.ndarray, " count"]


def choose_labels(wish: str, count: int, num_classes: int, seed: int) -> Labels:
    """One label per image from "balanced", "random" or classes such as "0,1,2", gone through in turn.

    A random label depends on (seed, i) alone. Raises InputError for anything else.
    """
    if wish == "balanced":
        return np.arange(count, dtype=np.int32) % num_classes
    if wish == "random":
        # A stream of its own: the same key must not make the noise too.
        key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
        draw = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (), 0, num_classes))
        return np.asarray(draw(np.arange(count)), np.int32)
    try:
        classes = [int(part) for part in wish.split(",")]
    except ValueError:
        raise InputError(f"--labels {wish} must be balanced, random, or classes such as 0,1,2.") from None
    if len(classes) > num_classes:
        raise InputError(f"--labels names {len(classes)} labels, but the model knows {num_classes} classes.")
    wrong = [label for label in classes if not 0 <= label < num_classes]
    if wrong:
        raise InputError(f"label {wrong[0]} is unknown: labels go from 0 to {num_classes - 1}.")
    return np.resize(np.array(classes, np.int32), count)


def check_new(out: Path) -> None:
    """Raise InputError unless `out` is free to be written."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already: choose another --out, or remove it first.")
    if out.suffix and out.suffix.lower() not in (".png", ".npz"):
        raise InputError(f"--out {out} must end in .png or .npz, or be a folder, whose name has no ending.")


def write_images(out: Path, images: UInt8[np.ndarray, "count height width channels"], labels: Labels) -> None:
    """Write a grid (.png), arrays (.npz) or a folder of PNGs named by index and label; whole or not at all."""
    check_new(out)
    if out.suffix.lower() == ".png":
        classes = len(np.unique(labels))
        draw_grid(out, images, columns=min(len(images), classes if 4 <= classes <= 16 else 8))
    elif out.suffix.lower() == ".npz":
        with whole_file(out) as aside, aside.open("wb") as file:
            np.savez(file, images=images, labels=labels)
    else:
        aside = out.with_name(f".{out.name}.{os.getpid()}")
        aside.mkdir(parents=True)
        try:
            digits = max(5, len(str(len(images) - 1)))
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                to_image(image).save(aside / f"{i:0{digits}d}-{label}.png")
            if out.exists():
                out.rmdir()
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
