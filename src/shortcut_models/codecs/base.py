"""The seam of codecs: from stored items to the network's range, and from samples to images."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Array, Float


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How data become what a network learns, and samples what people look at. All of it runs on the device."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for a stored item of this shape."""
        raise NotImplementedError

    def encode(self, batch: Mapping[str, Array], key: Array) -> Float[Array, "batch ..."]:
        """x1, float32, from a batch as a source stores it; `key` is for codecs that draw."""
        raise NotImplementedError

    def decode(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Images in about [-1, 1], float32, from samples; other data as they are."""
        raise NotImplementedError

    @property
    def identity(self) -> str:
        """What is recorded in runs and latents: another identity is another range of x."""
        raise NotImplementedError
