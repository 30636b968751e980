"""The codec of latents that an SD-VAE makes of images, or that were stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from shortcut_models.codecs import sd_vae_network as network
from shortcut_models.codecs.base import Codec
from shortcut_models.codecs.pixels import to_network
from shortcut_models.codecs.sd_vae import SCALE, SDVAE
from shortcut_models.codecs.sd_vae_file import find_vae, load_vae
from shortcut_models.errors import InputError

_STATIC: dict[str, Any] = {"static": True}
SLIP = 0.01
"""Share by which two scales of one VAE may differ: 0.18125 stands for 0.18215 in public code."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Latents(Codec):
    """x is a latent, times `scale`: of images encoded here, or of stored means and deviations.

    Latents that are stored can be trained on without the VAE; images need it to be encoded, samples to be
    decoded. `at_once` bounds how many images of a batch, all devices together, are in work at once.
    """

    encoded_by: ClassVar[str] = ""
    """Whose tool makes such latents, if not ours."""

    identity: str = field(metadata=_STATIC)  # pyrefly: ignore[bad-override]
    scale: float = field(default=SCALE, metadata=_STATIC)
    factor: int = field(default=8, metadata=_STATIC)
    channels: int = field(default=4, metadata=_STATIC)
    at_once: int | None = field(default=None, metadata=_STATIC)
    vae: SDVAE | None = None

    @classmethod
    def of(cls, vae: SDVAE, *, at_once: int | None = None) -> Self:
        """The codec of this VAE."""
        sizes = vae.architecture
        return cls(
            identity=vae.identity,
            scale=cls.scale_of(vae),
            factor=sizes.factor,
            channels=sizes.channels,
            at_once=at_once,
            vae=vae,
        )

    @staticmethod
    def scale_of(vae: SDVAE) -> float:
        """What latents of this VAE are multiplied by."""
        return vae.scale

    def using(self, vae: SDVAE) -> Self:
        """The same with a VAE to decode with, by the scale that the latents have, whatever usually goes with the VAE.

        Raises InputError if it is another VAE than the latents' own.
        """
        if self.identity and vae.identity != self.identity:
            raise InputError(
                f"these latents were made by the VAE {self.identity[:12]}, but the one given is {vae.identity[:12]}: "
                "give the file that they were made with."
            )
        # Where they do not name their VAE, its scale tells the families apart; a slip of the pen is within one.
        if not self.identity and abs(self.scale_of(vae) / self.scale - 1) > SLIP:
            raise InputError(
                f"these latents are scaled by {self.scale}, but this VAE's by {self.scale_of(vae)}: give the VAE that "
                "they were made with."
            )
        return replace(self.of(vae, at_once=self.at_once), scale=self.scale)

    def ready(self) -> Self:
        """The same with its VAE, from SHORTCUT_VAE or the hub's cache; another than the latents' own is refused."""
        if self.vae is not None:
            return self
        return self.using(load_vae(find_vae(flag=None)))

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """(H / 8, W / 8, 4) for an image (H, W, 3); a stored latent's own for its mean."""
        if len(image) == 3 and image[2] == self.channels:
            return image
        if len(image) != 3 or image[2] != 3 or image[0] % self.factor or image[1] % self.factor:
            raise InputError(
                f"images have shape {image}, but to be encoded they must have 3 channels, and a height and width that "
                f"are multiples of {self.factor}: choose others, or learn from pixels (--data.vae '')."
            )
        return image[0] // self.factor, image[1] // self.factor, self.channels

    def encode(self, batch: Mapping[str, Array], key: Key[Array, ""]) -> Float[Array, "batch h w c"]:
        """Scale * (mean + deviation * eps), eps drawn from `key` for every value; "x", of pairs, as it is."""
        if "x" in batch:
            return batch["x"]
        if "image" in batch:
            vae = self._need("encoding images")
            run = partial(network.encode, vae.params, of=vae.architecture, dtype=vae.dtype)
            mean, logvar = self._in_turns(run, self.seen(to_network(batch["image"])))
            deviation = jnp.exp(logvar / 2)
        elif "mean" in batch and "deviation" in batch:
            mean, deviation = (batch[name].astype(jnp.float32) for name in ("mean", "deviation"))
        else:
            raise InputError(
                f"a batch has {', '.join(sorted(batch))}, but 'image', 'x', or 'mean' and 'deviation', is needed."
            )
        return self.scaled(mean + deviation * jax.random.normal(key, mean.shape, jnp.float32))

    def decode(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch height width 3"]:
        """Images of samples: x / scale, decoded."""
        vae = self._need("decoding latents")
        run = partial(network.decode, vae.params, of=vae.architecture, dtype=vae.dtype)
        return self.shown(self._in_turns(run, self.unscaled(x)))

    def scaled(self, latent: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        """The network's x of a latent as the VAE has it."""
        return self.scale * latent

    def unscaled(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        """Undo `scaled`."""
        return x / self.scale

    def seen(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
        """Images in [-1, 1] as the VAE is given them."""
        return images

    def shown(self, decoded: Float[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
        """Undo `seen`."""
        return decoded

    def _need(self, what: str) -> SDVAE:
        if self.vae is None:
            raise InputError(
                f"{what} needs the VAE {self.identity[:12] or 'that made them'}: "
                "name its file by SHORTCUT_VAE (`shortcut prepare` takes --vae)."
            )
        return self.vae

    def _in_turns(self, run: Callable[[Array], Any], x: Array) -> Any:
        """`run` on parts of equal size, one after the other; each is spread over the devices as `x` is."""
        count, most = len(x), self.at_once or len(x)
        size = next(size for size in range(min(most, count), 0, -1) if count % size == 0)
        if size == count:
            return run(x)
        # Each part takes every (count / size)-th image: a device finds its share of every part among its own.
        parts = jnp.moveaxis(x.reshape(size, count // size, *x.shape[1:]), 1, 0)
        found = jax.lax.map(run, parts)
        return jax.tree.map(lambda array: jnp.moveaxis(array, 0, 1).reshape(count, *array.shape[2:]), found)
