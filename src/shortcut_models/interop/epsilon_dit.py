"""A DiT that predicts noise, as a network of velocities: exact, but in its own way on part of the path.

Peebles & Xie's DiT (arXiv 2212.09748) is asked at integer steps k = 0..999 of a variance-preserving
process x = a data + s noise, with a = sqrt(abar_k), s = sqrt(1 - abar_k) and betas linear from 1e-4 to
0.02 (facebookresearch/DiT, `diffusion/gaussian_diffusion.py`), and answers the noise. The rescaled
z = x / (a + s) lies on the straight path at t = a / (a + s), where r = sqrt(t^2 + (1-t)^2) = 1 / (a + s),
and its velocity, data - noise, is (z - noise) / t.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from shortcut_models.errors import InputError
from shortcut_models.networks.base import Network, Params
from shortcut_models.networks.dit import DiT
from shortcut_models.sampling import Jumps

STEPS = 1000


def path_times() -> np.ndarray:
    """Time t = a / (a + s) on the straight path of every step k, (1000,), float64: from .9901 down to .0063."""
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS))
    a, s = np.sqrt(alphas), np.sqrt(1 - alphas)
    return a / (a + s)


def ddim_jumps(steps: int) -> Jumps:
    """The jumps that DDIM with eta 0 makes in so many steps (Song et al., arXiv 2010.02502).

    Its steps k are evenly spread over 0..999, both ends included, as the official code spaces them. The
    first jump starts from noise at t=0, the last one ends at the data.
    """
    if not 1 <= steps <= STEPS:
        raise InputError(f"a DiT samples in 1 to {STEPS} steps, not {steps}.")
    asked = np.round(np.linspace(STEPS - 1, 0, steps)).astype(int)
    t = np.concatenate([[0.0], path_times()[asked[1:]]])
    length = np.diff(t, append=1.0)
    return Jumps(*(part.astype(np.float32) for part in (t, length, length, np.ones(steps))))


@dataclass(frozen=True)
class EpsilonDiT(Network):
    """The velocity of a DiT that predicts noise; it samples, but is no network to start a training from."""

    computing: ClassVar[frozenset[str]] = frozenset(["dtype"])
    stacked: ClassVar[tuple[str, ...]] = ("blocks",)
    only_samples: ClassVar[bool] = True

    num_classes: int = 1000
    """Number of labels; label `num_classes` is the null label of guidance."""
    image_size: int = 32
    """Height and width of the (square) input."""
    channels: int = 4
    """Channels of the input; the variance that the source also predicts is left out."""
    patch_size: int = 2
    """Side of the square patches that become tokens."""
    hidden_size: int = 1152
    """Width of a token."""
    depth: int = 28
    """Number of transformer blocks."""
    num_heads: int = 16
    """Attention heads in each block."""
    mlp_ratio: float = 4.0
    """Width of a block's hidden layer, in hidden_sizes."""
    position_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the position table is rounded to."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype."""

    def __post_init__(self) -> None:
        self.inner  # noqa: B018 - the sizes are checked there

    @property
    def inner(self) -> DiT:
        """The network that answers the noise, asked at the step k in place of t; its step size adds nothing."""
        return DiT(
            num_classes=self.num_classes,
            image_size=self.image_size,
            channels=self.channels,
            patch_size=self.patch_size,
            hidden_size=self.hidden_size,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            step_conditioning="smooth",
            time_scale=1.0,
            qk_norm=False,
            attention_scale="root",
            position_dtype=self.position_dtype,
            dtype=self.dtype,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input: (height, width, channels)."""
        return self.inner.shape

    def init(self, key: Array) -> Params:
        """Draw float32 parameters in the layout of `DiT.init`."""
        return self.inner.init(key)

    def exact(self) -> Self:
        """The same network, computing in float32."""
        return replace(self, dtype="float32")

    def sized(self, shape: tuple[int, ...], num_classes: int) -> Self:
        """The same network, if it fits; its weights are a published model's, and are for no other data."""
        if shape != self.shape or num_classes != self.num_classes:
            raise InputError(
                f"this DiT is for inputs of shape {self.shape} and {self.num_classes} classes, "
                f"not {shape} and {num_classes}: use data of that kind."
            )
        return self

    def apply(
        self,
        params: Params,
        x: Float[Array, "batch height width channels"],
        t: Float[Array, " batch"],
        d: Float[Array, " batch"],
        label: Int[Array, " batch"],
    ) -> Float[Array, "batch height width channels"]:
        """The velocity at t; where the source knows no step, before t = .0063, the jump that DDIM makes there.

        There x is taken for the noisiest input (k = 999) that it nearly is, and a jump beyond
        t = .0063 lands where DDIM's first step lands: at noise + (t + d) (data - noise), with both
        as the source sees them. After t = .9901 the source is asked at k = 0.
        """
        times = jnp.asarray(path_times(), jnp.float32)
        first = times[-1]
        k = jnp.interp(t, times[::-1], jnp.arange(STEPS - 1, -1, -1, dtype=jnp.float32))
        # Times of whole steps are those steps, in spite of float32.
        k = jnp.where(jnp.abs(k - jnp.round(k)) < 2e-3, jnp.round(k), k)
        at, before = _rows(jnp.maximum(t, first)), _rows(t < first)
        # x before the first step has the scale that the process has at its own t; z is on the path at `at`.
        source = x / _radius(_rows(t))
        noise = self.inner.apply(params, source, k, jnp.zeros_like(d), label)
        z = jnp.where(before, source * _radius(at), x)
        velocity = (z - noise) / at
        end = _rows(t + d)
        lands = noise + end * velocity
        jump = (lands - x) / jnp.where(_rows(d) > 0, _rows(d), 1.0)
        return jnp.where(before & (end > first), jump, velocity)


def _radius(t: Float[Array, "batch 1 1 1"]) -> Float[Array, "batch 1 1 1"]:
    return jnp.sqrt(t * t + (1 - t) * (1 - t))


def _rows(per_example: Array) -> Array:
    """One value per example, against images."""
    return per_example[:, None, None, None]
