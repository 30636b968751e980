"""A sampler to be exported: what is asked for, what it must answer, and how its file comes to be."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shortcut_models import sampling
from shortcut_models.codecs import Codec, Pixels
from shortcut_models.errors import InputError, check_whole
from shortcut_models.files import explained, make_folder, naming, remove_empty
from shortcut_models.model import Model
from shortcut_models.networks import Params
from shortcut_models.sampling import Jumps

TOLERANCE = 1e-4
"""How far a file's samples may be from ours, as a share of the largest value, or absolute if that is below 1."""
CHECKED = 3
"""Samples that are compared: no number that a model has for other reasons."""
Samples = Float[np.ndarray, "count ..."]


class Sampler(NamedTuple):
    """What is asked for: a model, its jumps, guidance, and the decoder if it belongs in the file."""

    model: Model
    jumps: Jumps
    guidance: float
    codec: Codec | None = None

    @classmethod
    def of(cls, model: Model, steps: int, guidance: float, decode: bool) -> "Sampler":
        """Raises InputError for what the model does not take."""
        check_whole("steps", steps, 1)
        model.check_guidance(guidance)
        if decode and model.data.codec.identity == Pixels.identity:
            raise InputError("this model makes no latents, which a decoder would take: leave --decode out.")
        codec = model.data.codec.ready() if decode else None
        return cls(model, model.objective.jumps(int(steps)), float(guidance), codec)

    @property
    def steps(self) -> int:
        """Network calls for a sample."""
        return len(self.jumps.t)

    @property
    def labels(self) -> int:
        """How many it takes, that for none included; 0 of a model without labels, which ignores them."""
        return 0 if self.model.unconditional else self.model.num_classes + 1

    @property
    def renoises(self) -> bool:
        """Whether it adds fresh noise between jumps, which follows from a seed."""
        return bool(np.any(self.jumps.renoise < 1))

    def jump(
        self,
        params: Params,
        label: Int[Array, " batch"],
        index: Int[Array, ""],
        x: Float[Array, "batch ..."],
        fresh: Float[Array, "batch ..."] | None,
    ) -> Float[Array, "batch ..."]:
        """Jump number `index`, as `sampling.make_jump` has it, but for the noise to add after it, which is given."""
        model, back = self.model, self.jumps.renoise
        if model.unconditional:
            label = jnp.full_like(label, model.null_label)
        velocity = sampling.guided(partial(model.network.apply, params), self.guidance, model.null_label)
        x = sampling.make_jump(velocity, label, self.jumps._replace(renoise=np.ones_like(back)), None)(index, x)
        if fresh is None:
            return x
        kept = jnp.asarray(back)[index]
        return jnp.where(kept < 1, kept * x + (1 - kept) * fresh, x)

    @staticmethod
    def decode(codec: Codec, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """What the codec makes of each, all at once: given them all, it may look at their number, which is unknown."""
        return jax.vmap(lambda x: codec.decode(x[None])[0])(x)

    def about(self) -> dict[str, str]:
        """What the file says of itself, as text by name."""
        model = self.model
        classes = 0 if model.unconditional else model.num_classes
        return {
            "steps": str(self.steps),
            "guidance": repr(self.guidance),
            "decoded": str(self.codec is not None).lower(),
            "weights": model.weights,
            "step": str(model.step),
            "num_classes": str(classes),
            "labels": f"0 to {classes - 1}; {classes} is no label" if classes else "none",
            "class_names": json.dumps(list(model.class_names)),
        }

    def example(self) -> tuple[dict[str, np.ndarray], Samples]:
        """Inputs, and what our own sampler answers, with seed 0."""
        noise, labels = self.model.noise(0, 0, CHECKED), self.model.balanced_labels(CHECKED)
        expected = self.model.sample(labels, self.steps, self.guidance, noise=noise)
        return {"noise": noise, "label": labels}, expected if self.codec is None else self.model.decode(expected)


def check(found: Samples, expected: Samples) -> float:
    """The largest difference; raises InputError if that is too large."""
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):  # Also true of NaN.
        raise InputError(
            f"the file answers otherwise than this model, by {difference:.2g} where {TOLERANCE:g} of the largest "
            "value may be, so that nothing was written: export a model folder instead."
        )
    return difference


def need(extra: str, *packages: str) -> None:
    """Raise InputError unless the packages of an extra are there."""
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise InputError(
                f"the package {package} is needed to write .{extra} files: pip install 'shortcut-models[{extra}]'."
            ) from None


@contextmanager
def placed(*places: Path) -> Iterator[list[Path]]:
    """Paths to write to, in a folder aside; what is there at the end takes the places, the last of them last.

    Raises InputError if a place is taken or cannot be written.
    """
    folder = places[-1].with_name(f".aside-{secrets.token_hex(6)}")
    with explained(), naming(places[-1], instead_of=folder):
        for place in reversed(places):
            if os.path.lexists(place):  # A link is there even if what it leads to is not.
                raise InputError(f"{place} is there already: choose another name, or remove it.")
        made = make_folder(folder.parent)
        try:
            folder.mkdir()
            paths = [folder / place.name for place in places]
            yield paths
            for path, place in zip(paths, places, strict=True):
                if path.exists():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())  # Or a crash of the machine could leave the name with no content.
                    path.replace(place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            remove_empty(made)


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths, such as blocks.qkv.kernel."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
