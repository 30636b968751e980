"""Methods in equal stages of a training, counted in images."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Int, Integer

from shortcut_models.errors import InputError, check_at_least
from shortcut_models.objectives.base import Objective


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


@dataclass(frozen=True, kw_only=True)
class Staged(Objective):
    """A method with `num_stages` stages, spread evenly over `total_images`."""

    total_images: int = 0
    """Images over which the stages are spread; 0: over the whole training, max_steps x batch_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("objective.", self, {"total_images": 0})

    @property
    def stages(self) -> Stages:
        """The stages; meaningful once `total_images` is set, see `for_length`."""
        return Stages(self.num_stages, self.total_images)

    def for_length(self, images: int) -> Self:
        """Spread the stages over a training on so many images, unless `total_images` says otherwise."""
        return self if self.total_images else replace(self, total_images=images)

    def check(self, batch_size: int, images: int) -> None:
        """All stages must fit, or the training would end before the method is done."""
        super().check(batch_size, images)
        count, total = self.num_stages, self.total_images or images
        if images < count:
            raise InputError(
                f"the objective has {count} stages of at least 1 image, but max_steps x batch_size = {images}: "
                "train longer."
            )
        if images >= 2**32:
            raise InputError(
                f"max_steps x batch_size = {images}, but a method in stages counts at most {2**32 - 1} images: train "
                "less long."
            )
        if not count <= total <= images:
            raise InputError(
                f"the objective spreads {count} stages over objective.total_images {total}, but "
                f"max_steps x batch_size = {images}: set --objective.total-images {images}, or train as long as that."
            )
