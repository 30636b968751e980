"""Pixels, and everything else that a network learns as it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from shortcut_models.codecs.base import Codec

# Looked up rather than computed: compilers turn the division into a product, which is off by a bit on some devices.
LEVELS = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)


@dataclass(frozen=True, kw_only=True)
class Pixels(Codec):
    """uint8 images scaled to [-1, 1]; floats as they are."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The same."""
        return stored

    def encode(self, batch: Mapping[str, Array], key: Array) -> Float[Array, "batch ..."]:
        """The batch's "image", 0..255 scaled to -1..1, or its "x" as it is."""
        del key  # Nothing is drawn.
        return batch["x"] if "x" in batch else jnp.asarray(LEVELS)[batch["image"]]

    def decode(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The same."""
        return x

    @property
    def identity(self) -> str:
        """Its name."""
        return "pixels"
