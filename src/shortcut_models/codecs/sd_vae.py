"""Stable Diffusion's VAE, ready to use: images to latents and back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from shortcut_models import sharding
from shortcut_models.codecs import sd_vae_network as network
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
