"""The seam of figures: what one is drawn from, and what it says about itself."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from shortcut_models.codecs import Codec
from shortcut_models.data.base import Source, take
from shortcut_models.errors import InputError
from shortcut_models.model import Model
from shortcut_models.views import View, get_view

ENCODING = 2**32 - 1
"""Folded in twice, it keeps the noise of encoders apart from that of samples, of which none has this index."""
PIECE = 64
"""Examples that are encoded at once: for images of 256x256, a VAE needs gigabytes for so many."""
Labels = Int[np.ndarray, " count"]


@jax.jit
def _encode(codec: Codec, stored: dict[str, Array], key: Key[Array, ""]) -> Array:
    return codec.encode(stored, key)


@dataclass(frozen=True, kw_only=True)
class Given:
    """A trained model, and how its figures are wished. Equal ones give equal pictures."""

    model: Model
    run: Path | None = None
    """The run folder, for what it logged; None: there is none."""
    count: int | None = None
    """Samples in a row, or points in a panel; None: as many as are readable."""
    steps: int = 4
    """Network calls per sample, of figures that show one budget."""
    seed: int = 0
    """Of noise and examples."""
    guidance: float = 1.0
    """Push towards the label; 1 is none."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}, but sampling takes at least 1 step.")
        if self.count is not None and self.count < 1:
            raise InputError(f"count is {self.count}, but at least 1 sample must be drawn.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}, but must lie between 0 and 4294967295.")
        self.model.check_guidance(self.guidance)

    @cached_property
    def view(self) -> View:
        """How samples are drawn."""
        return get_view(self.model.data.view)

    @property
    def shown(self) -> int:
        """Samples in a row, or points in a panel."""
        return self.view.READABLE if self.count is None else self.count

    @property
    def split(self) -> str:
        """The split of examples: held-out ones where there are any."""
        return self.model.data.held_out or self.model.data.splits[0]

    @cached_property
    def _sources(self) -> dict[str, Source]:
        return {}

    def source(self, split: str) -> Source:
        """A split, opened once; raises InputError if it is not at hand."""
        if split not in self._sources:
            self._sources[split] = self.model.data.open(split)
        return self._sources[split]

    def indices(self, split: str, count: int) -> Int[np.ndarray, " count"]:
        """At most so many examples of a split, drawn by the seed, in rising order."""
        source = self.source(split)
        if getattr(source, "in_order", False):  # Reading them anywhere costs as much as reading all.
            return np.arange(min(count, len(source)))
        drawn = np.random.default_rng([self.seed, 0x666967]).choice(
            len(source), min(count, len(source)), replace=False, shuffle=False
        )
        return np.sort(drawn)

    def examples(self, split: str, indices: Int[np.ndarray, " count"]) -> tuple[Float[np.ndarray, "count ..."], Labels]:
        """Examples in the network's range, and the labels that the network knows them by."""
        # Another stream than that of samples, or the first example would be paired with its own encoder's noise.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), ENCODING), ENCODING)
        codec, parts, labels = jax.device_put(self.model.data.codec), [], []
        for start in range(0, len(indices), PIECE):
            stored = take(self.source(split), indices[start : start + PIECE])
            labels.append(stored.pop("label"))
            parts.append(np.asarray(_encode(codec, stored, jax.random.fold_in(key, start))))
        label = np.concatenate(labels)
        x1 = np.concatenate(parts)
        return x1, np.full_like(label, self.model.null_label) if self.model.unconditional else label

    def noise(self, count: int) -> Float[np.ndarray, "count ..."]:
        """The noise that samples of this seed start from."""
        return self.model.noise(self.seed, 0, count)

    def samples(self, labels: Labels, steps: int | None = None) -> np.ndarray:
        """Samples as the view draws them, in so many steps."""
        return self.picture(self.model.sample(labels, steps or self.steps, self.guidance, self.seed))

    def picture(self, x: Float[np.ndarray, "count ..."]) -> np.ndarray:
        """From the network's range to samples as the view draws them."""
        return self.view.to_samples(self.model.decode(x))

    def class_names(self, labels: Labels) -> list[str]:
        """What to call the classes of samples, "" for none: the null label may be a class of the data's."""
        known = self.model.num_classes
        names = self.model.data.class_names or [f"class {number}" for number in range(known)]
        return [names[label] if label < min(known, len(names)) else "" for label in labels]

    @property
    def budget(self) -> str:
        """The number of steps, in words."""
        return f"{self.steps} step" + "s" * (self.steps > 1)

    @property
    def settings(self) -> str:
        """What samples were drawn with, for the foot of a picture."""
        guidance = f", guidance {self.guidance:g}" if self.guidance != 1 else ""
        return f"step {self.model.step:,}, {self.model.weights} weights, seed {self.seed}{guidance}"


@dataclass(frozen=True, kw_only=True)
class Figure(ABC):
    """One kind of picture. A new one is a file with a class derived from this one, and a line in the catalogue."""

    how: str
    """How to read it, for people."""
    needs_data: bool = False
    """Whether it shows examples of the data set."""
    needs_decoding: bool = True
    """Whether it shows samples, for which latents must be decoded."""
    needs_single: bool = False
    """Whether it shows samples one by one, which says nothing of points."""

    def lacks(self, given: Given) -> str | None:
        """Why it cannot be drawn, in a sentence; None if it can be."""
        if self.needs_single and not given.view.SINGLE:
            return f"one of the {given.view.NOUN} says nothing by itself."
        try:
            if self.needs_data:
                for split in {given.split, given.model.data.splits[0]}:
                    given.examples(split, np.arange(1))  # Reading and encoding one tells all that may be missing.
            if self.needs_decoding:
                given.model.data.codec.ready()
        except InputError as error:
            return str(error)
        return None

    @abstractmethod
    def draw(self, given: Given, path: Path) -> None:
        """Write the PNG, whole or not at all."""
