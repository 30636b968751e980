"""The codec of latents as EDM2 has them (Karras et al., arXiv 2312.02696; the code's StabilityVAEEncoder)."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float

from shortcut_models.codecs.latents import Latents
from shortcut_models.codecs.sd_vae import SDVAE

MEAN = np.array([5.81, 3.25, 0.12, -2.15], np.float32)
"""Of the latents of ImageNet's images in [0, 1], for each channel."""
DEVIATION = np.array([4.17, 4.62, 3.71, 3.28], np.float32)
"""Their standard deviation."""
SCALE = 0.5
"""The standard deviation of x."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Edm2Latents(Latents):
    """x is a latent of an image in [0, 1], whitened channel by channel, times 0.5."""

    encoded_by: ClassVar[str] = "edm2"

    scale: float = field(default=SCALE, metadata={"static": True})

    @staticmethod
    def scale_of(vae: SDVAE) -> float:
        """EDM2's own, whatever scale usually goes with the VAE."""
        del vae
        return SCALE

    def scaled(self, latent: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        """(latent - mean) * 0.5 / deviation."""
        return (latent - MEAN) * (self.scale / DEVIATION)

    def unscaled(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        """Undo `scaled`."""
        return x * (DEVIATION / self.scale) + MEAN

    def seen(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
        """From [-1, 1] to [0, 1]."""
        return (images + 1) / 2

    def shown(self, decoded: Float[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
        """From [0, 1] to [-1, 1]."""
        return 2 * decoded - 1
