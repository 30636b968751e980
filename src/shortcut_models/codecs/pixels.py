"""Images, or points, as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from shortcut_models.codecs.base import Codec
from shortcut_models.errors import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Pixels(Codec):
    """No encoding: uint8 is scaled to [-1, 1] by x / 127.5 - 1, floats of any shape pass unchanged."""

    identity: ClassVar[str] = "pixels"

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """The item's own."""
        return image

    def encode(self, batch: Mapping[str, Array], key: Key[Array, ""]) -> Float[Array, "batch ..."]:
        """The "image" scaled to [-1, 1], or "x" as it is; nothing is drawn from `key`."""
        del key
        if "x" in batch:
            return batch["x"]
        if "image" not in batch:
            raise InputError(
                f"a batch has {', '.join(sorted(batch))}, but 'image' or 'x' is needed: latents have another codec."
            )
        return to_network(batch["image"])

    def decode(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """`x` itself."""
        return x


def to_network(images: Array) -> Float[Array, "batch ..."]:
    """uint8 0..255 to float32 -1..1, to the bit as `data.pixels.to_network` does on the host; float32 unchanged."""
    if images.dtype == jnp.float32:
        return images
    if images.dtype != jnp.uint8:
        raise InputError(f"images are {images.dtype}, but must be uint8, or float32 in [-1, 1].")
    # A table, made by NumPy: XLA would multiply by a rounded 1 / 127.5, one bit off for some of the values.
    return jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1))[images.astype(jnp.int32)]
