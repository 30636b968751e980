"""Equal stages of a training, counted in images."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, Integer

from shortcut_models.errors import InputError


class Stages(NamedTuple):
    """`count` stages that share `total_images` as equally as whole images allow."""

    count: int
    total_images: int

    @property
    def starts(self) -> tuple[int, ...]:
        """Images seen when stage 1, 2, ... starts; stage 0 starts at 0."""
        return tuple(-(-stage * self.total_images // self.count) for stage in range(1, self.count))

    def at(self, images: Integer[Array, ""] | int) -> Int[Array, ""]:
        """The stage, from 0, of a step before which so many images were seen; the last one goes on."""
        return jnp.sum(jnp.asarray(images, jnp.uint32) >= jnp.asarray(self.starts, jnp.uint32), dtype=jnp.int32)

    def check(self, method: str, images: int) -> None:
        """Raise InputError, with the arithmetic, unless a training on `images` images holds all stages."""
        if images < self.count:
            raise InputError(
                f"{method} has {self.count} stages of at least 1 image, but max_steps x batch_size = {images}: "
                "train longer."
            )
        if not self.count <= self.total_images <= images:
            raise InputError(
                f"{method} spreads {self.count} stages over objective.total_images {self.total_images}, but "
                f"max_steps x batch_size = {images}: set --objective.total-images {images}, or train as long as that."
            )
