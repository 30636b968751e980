"""What `shortcut sample` is asked for: labels, and a place for what is drawn."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Int

from shortcut_models.data.proportions import proportional_labels
from shortcut_models.errors import InputError, check_whole
from shortcut_models.objectives import Objective
from shortcut_models.terminal import Progress

Labels = Int[np.ndarray, " count"]


def default_labels(unconditional: bool) -> Literal["balanced", "none"]:
    """What `choose_labels` takes where nothing else is wished: "none" after a training that never saw a label."""
    return "none" if unconditional else "balanced"


def choose_labels(
    wish: str,
    count: int,
    num_classes: int,
    seed: int,
    counts: Int[np.ndarray, " classes"] | None = None,
    class_names: Callable[[], Sequence[str]] = tuple,
    first: int = 0,
) -> Labels:
    """One label per sample from "balanced", "random", "data", "none" or classes such as "0,1,2", gone through in turn.

    A random label depends on (seed, i) alone; "data" mixes the classes in the proportions of `counts`; "none" is the
    null label, `num_classes`. A class is a number, or else one of `class_names()`, which may have to read the data.
    They are those of samples `first`, `first` + 1, ...; but "data" mixes just these `count`.
    Raises InputError for anything else.
    """
    check_whole("seed", seed, 0, 2**32 - 1)
    if wish == "data" and counts is not None:
        return proportional_labels(counts, count)
    if wish == "balanced":
        return (np.arange(first, first + count) % num_classes).astype(np.int32)
    if wish == "none":
        return np.full(count, num_classes, np.int32)
    if wish == "random":
        # A stream of its own: the same key must not make the noise too.
        key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
        draw = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (), 0, num_classes))
        return np.asarray(draw(np.arange(first, first + count, dtype=np.uint32)), np.int32)
    parts = wish.split(",")
    try:
        classes = [int(part) for part in parts]
    except ValueError:
        classes = [_find_class(part, tuple(class_names())) for part in parts]
    if len(classes) > num_classes:
        raise InputError(f"--labels names {len(classes)} labels, but the model knows {num_classes} classes.")
    wrong = [label for label in classes if not 0 <= label < num_classes]
    if wrong:
        raise InputError(
            f"label {wrong[0]} is unknown: labels go from 0 to {num_classes - 1}, and none asks for no class."
        )
    return np.array(classes, np.int32)[np.arange(first, first + count) % len(classes)]


def _find_class(part: str, names: tuple[str, ...]) -> int:
    """The label of a class by its number, or else by its name."""
    if part.strip().isdecimal():
        return int(part)
    if part in names:
        return names.index(part)
    close = difflib.get_close_matches(part, names, 1)
    hint = f"did you mean {close[0]}?" if close else "use balanced, random, data, none, or classes such as 0,1,2."
    raise InputError(f"--labels names {part or 'an empty one'}, which is no class: {hint}")


def say_if_untrained(objective: Objective, guidance: float, budgets: Sequence[int]) -> None:
    """Say for which budgets guidance pushes away from answers that were never trained, as the original's do."""
    wrong = [steps for steps in budgets if guidance != 1 and not objective.trains_null_label_in(steps)]
    if wrong:
        Progress.say(
            f"guidance {guidance:g} in {', '.join(map(str, wrong))} step{'s' * (wrong != [1])}: jumps of this length "
            "were learnt with their labels alone, so that what guidance pushes away from was never trained."
        )


def check_file(out: Path, picture: str) -> None:
    """Raise InputError unless `out` is free, and a .png, for that kind of picture, or an .npz."""
    check_new(out)
    if out.suffix.lower() not in (".png", ".npz"):
        raise InputError(f"--out {out} must end in .png, for {picture}, or in .npz.")


def check_new(out: Path) -> None:
    """Raise InputError unless `out` is free to be written: it does not exist, or is an empty folder."""
    if out.exists() and not (out.is_dir() and not out.suffix and not any(out.iterdir())):
        raise InputError(f"{out} exists already: choose another --out, or remove it first.")
