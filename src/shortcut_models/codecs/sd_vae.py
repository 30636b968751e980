"""Stable Diffusion's VAE, ready to use, and the codec of latents that it makes or that were stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from shortcut_models import sharding
from shortcut_models.codecs import sd_vae_network as network
from shortcut_models.codecs.base import Codec
from shortcut_models.codecs.pixels import to_network
from shortcut_models.codecs.sd_vae_network import Architecture, Params
from shortcut_models.errors import InputError

SCALE = 0.18215
"""Latents are multiplied by it, which makes their standard deviation about 1 (CompVis' latent-diffusion, scale_factor).
One public data set is scaled by 0.18125, a slip of the pen."""

_STATIC: dict[str, Any] = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class SDVAE:
    """The network with its weights; made by `load_vae`. A JAX pytree: its leaves are the weights."""

    params: Params
    architecture: Architecture = field(default=Architecture(), metadata=_STATIC)
    scale: float = field(default=SCALE, metadata=_STATIC)
    """What `Latents` multiplies latents by; `encode` and `decode` know nothing of it."""
    identity: str = field(default="", metadata=_STATIC)
    """SHA-256 over canonical names and float32 values: the same for every file of the same weights."""
    file_sha256: str = field(default="", metadata=_STATIC)
    """SHA-256 of the file that the weights came from."""
    dtype: str = field(default="float32", metadata=_STATIC)
    """What it computes in. bfloat16 is off by 1.5 to 1.8 % (root mean square over spread, random weights)."""
    at_once: int = field(default=16, metadata=_STATIC)
    """Most images per device that are in work at once: decoding to 256x256, each takes 160 MiB."""

    def encode(self, images: Any) -> tuple[Float[Array, "batch h w c"], Float[Array, "batch h w c"]]:
        """Mean and log-variance, float32 and unscaled, of the latents of images.

        `images`, a NumPy or JAX array (batch, height, width, 3) of floats in [-1, 1], has a height and
        a width that are multiples of 8; the latents are 8 times smaller, with 4 channels. Large
        batches are worked off in pieces, each spread over this process's devices. Raises InputError for
        any other shape, dtype or range.
        """
        x, factor = _floats("images", images, 3), self.architecture.factor
        if x.shape[1] % factor or x.shape[2] % factor or not x.size:
            raise InputError(
                f"images have shape {x.shape}, but height and width must be multiples of {factor}: crop or resize them."
            )
        if not np.abs(x).max() <= 1.01:  # Also true of NaN.
            raise InputError(
                f"images have values up to {np.abs(x).max()}, but must lie in [-1, 1]: of bytes that is x / 127.5 - 1."
            )
        return self._in_pieces(_encode, x)

    def decode(self, latents: Any) -> Float[Array, "batch height width 3"]:
        """Images, float32 and about [-1, 1] (not clipped), of unscaled latents.

        `latents`, a NumPy or JAX array of floats, has shape (batch, h, w, 4); images are 8 times larger.
        Raises InputError for any other shape or dtype.
        """
        x = _floats("latents", latents, self.architecture.channels)
        if not x.size:
            raise InputError(f"latents have shape {x.shape}, which holds nothing to decode.")
        return self._in_pieces(_decode, x)

    def _in_pieces(self, run: Callable[["SDVAE", Array], Any], x: Array | np.ndarray) -> Any:
        """`run` on pieces of one size, so that it is compiled once, each spread over this process's devices."""
        placed, count = self._placed, len(x)
        each = min(self.at_once, -(-count // placed.devices))
        size, vae, place = each * placed.devices, placed.everywhere, placed.spread
        if count < placed.devices:  # One device does them all: the others would have to repeat its work.
            size, vae, place = min(count, self.at_once), placed.on_one, placed.one
        parts = []
        for first in range(0, count, size):
            piece = x[first : first + size]
            if missing := size - len(piece):
                piece = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
            found = run(vae, jax.device_put(piece, place))
            parts.append(jax.tree.map(lambda array, keep=size - missing: array[:keep], found) if missing else found)
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)

    @cached_property
    def _placed(self) -> "_Placed":
        return _Placed(self)


class _Placed:
    """A VAE with its weights on every device of this process."""

    def __init__(self, vae: SDVAE) -> None:
        mesh = sharding.make_mesh(jax.local_devices())
        self.devices = mesh.size
        self.spread, self.one = sharding.batch_sharding(mesh), jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        self.everywhere = jax.device_put(vae, sharding.replicated(mesh))
        self.on_one = jax.tree.map(lambda array: array.addressable_shards[0].data, self.everywhere)


@jax.jit
def _encode(vae: SDVAE, images: Array) -> tuple[Array, Array]:
    return network.encode(vae.params, images, vae.architecture, vae.dtype)


@jax.jit
def _decode(vae: SDVAE, latents: Array) -> Array:
    return network.decode(vae.params, latents, vae.architecture, vae.dtype)


def _floats(name: str, values: Any, channels: int) -> Array | np.ndarray:
    """float32 (batch, height, width, channels), or InputError."""
    x = values if isinstance(values, jax.Array) else np.asarray(values)
    if x.ndim != 4 or x.shape[-1] != channels:
        raise InputError(f"{name} have shape {x.shape}, but must be (batch, height, width, {channels}), channels last.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        hint = "; of bytes that is x / 127.5 - 1" if name == "images" else ""
        raise InputError(f"{name} are {x.dtype}, but must be floats{hint}.")
    return x.astype(np.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Latents(Codec):
    """x is a latent, times `scale`: of images encoded here, or of stored means and deviations.

    Latents that are stored can be trained on without the VAE; images need it to be encoded, samples to be
    decoded. `at_once` bounds how many images of a batch, all devices together, are in work at once.
    """

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
        """The same with a VAE to decode with; raises InputError if it is another than the latents' own."""
        if self.identity and vae.identity != self.identity:
            raise InputError(
                f"these latents were made by the VAE {self.identity[:12]}, but the one given is {vae.identity[:12]}: "
                "give the file that they were made with."
            )
        if (scale := self.scale_of(vae)) != self.scale:
            raise InputError(f"these latents are scaled by {self.scale}, but this VAE's scale is {scale}.")
        return self.of(vae, at_once=self.at_once)

    def ready(self) -> Self:
        """The same with its VAE, from SHORTCUT_VAE or the hub's cache; another than the latents' own is refused."""
        if self.vae is not None:
            return self
        from shortcut_models.codecs.sd_vae_file import find_vae, load_vae

        return self.using(load_vae(find_vae()))

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """(H / 8, W / 8, 4) for an image (H, W, 3); a stored latent's own for its mean."""
        if len(image) == 3 and image[2] == self.channels:
            return image
        if len(image) != 3 or image[2] != 3 or image[0] % self.factor or image[1] % self.factor:
            raise InputError(
                f"images have shape {image}, but to be encoded they must have 3 channels, and a height and width that "
                f"are multiples of {self.factor}."
            )
        return image[0] // self.factor, image[1] // self.factor, self.channels

    def encode(self, batch: Mapping[str, Array], key: Key[Array, ""]) -> Float[Array, "batch h w c"]:
        """Scale * (mean + deviation * eps), eps drawn from `key` for every value."""
        if "image" in batch:
            vae = self._need("encoding images")
            run = partial(network.encode, vae.params, of=vae.architecture, dtype=vae.dtype)
            mean, logvar = self._in_turns(run, self.seen(to_network(batch["image"])))
            deviation = jnp.exp(logvar / 2)
        elif "mean" in batch and "deviation" in batch:
            mean, deviation = (batch[name].astype(jnp.float32) for name in ("mean", "deviation"))
        else:
            raise InputError(
                f"a batch has {', '.join(sorted(batch))}, but 'image', or 'mean' and 'deviation', is needed."
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
                "give its file with --vae or SHORTCUT_VAE."
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
