"""The seam of codecs: how a stored item becomes the network's x, and a sample an image."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float, Key


@dataclass(frozen=True, kw_only=True, eq=False)
class Codec(ABC):
    """Encodes batches and decodes samples on the device.

    Every method but `shape` works under `jit`, on a batch that may be spread over devices. A codec is
    a JAX pytree whose leaves are its weights: pass it to a jitted function as an argument rather than
    close over it, so that they do not become constants of the compiled program. Derived classes
    register themselves with `jax.tree_util.register_dataclass`.
    """

    identity: ClassVar[str]
    """What the latents of two codecs have in common when they can be mixed; recorded in latents and runs.
    A derived class may make it a field."""

    @abstractmethod
    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for one stored item of shape `image`; raises InputError if the codec cannot take it."""

    @abstractmethod
    def encode(self, batch: Mapping[str, Array], key: Key[Array, ""]) -> Float[Array, "batch ..."]:
        """The data x1 of a batch, float32 in the network's range.

        `batch` has "image" (uint8, or float32 in [-1, 1]), "x" (float32, already x1), or "mean" and
        "deviation" (float16 or float32, unscaled); `key` is for codecs that draw. Raises InputError,
        when traced, for a batch that has none of what the codec takes.
        """

    def ready(self) -> "Codec":
        """The codec with what decoding needs; raises InputError, saying where it is looked for, if that is missing."""
        return self

    @abstractmethod
    def decode(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Images of samples, float32, about [-1, 1]; clipping and rounding belong to whoever writes or measures."""
