"""The network of Stable Diffusion's VAE in plain JAX, channels last (arXiv 2112.10752; diffusers' AutoencoderKL).

Parameters are a flat dict in the names that diffusers writes, such as "encoder.conv_in.weight".
Kernels are (height, width, in, out) for convolutions and (in, out) for attention; PyTorch's are
(out, in, height, width) and (out, in).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Params = Mapping[str, Any]  # Arrays of JAX or NumPy.
Shapes = dict[str, tuple[int, ...]]

EPSILON = 1e-6
"""Of every group norm; PyTorch's own default is 1e-5."""
LOGVAR_RANGE = (-30.0, 20.0)
"""Where log-variances are clipped (CompVis' and diffusers' DiagonalGaussianDistribution)."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of an SD-VAE; the defaults are those of every published file of Stable Diffusion 1 and 2."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level, the finest first; each level but the last halves the image."""
    layers: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""
    channels: int = 4
    """Channels of a latent."""
    groups: int = 32
    """Groups of every group norm."""

    @property
    def factor(self) -> int:
        """How many times smaller a latent is than its image."""
        return 2 ** (len(self.widths) - 1)


def layout(of: Architecture) -> Shapes:
    """Every tensor of a published file with its shape there (PyTorch's order), in today's names."""
    first, last, wide = of.widths[0], of.widths[-1], 2 * of.channels
    shapes = {
        **_conv("encoder.conv_in", 3, first),
        **_middle("encoder", last),
        **_norm("encoder.conv_norm_out", last),
        **_conv("encoder.conv_out", last, wide),
        **_conv("quant_conv", wide, wide, 1),
        **_conv("post_quant_conv", of.channels, of.channels, 1),
        **_conv("decoder.conv_in", of.channels, last),
        **_middle("decoder", last),
        **_norm("decoder.conv_norm_out", first),
        **_conv("decoder.conv_out", first, 3),
    }
    for side, block, sampler, widths, layers in (
        ("encoder", "down_blocks", "downsamplers", of.widths, of.layers),
        ("decoder", "up_blocks", "upsamplers", of.widths[::-1], of.layers + 1),
    ):
        before = widths[0]
        for i, width in enumerate(widths):
            for j in range(layers):
                shapes |= _residual(f"{side}.{block}.{i}.resnets.{j}", before if j == 0 else width, width)
            if i < len(widths) - 1:
                shapes |= _conv(f"{side}.{block}.{i}.{sampler}.0.conv", width, width)
            before = width
    return shapes


def _conv(name: str, inner: int, outer: int, size: int = 3) -> Shapes:
    return {f"{name}.weight": (outer, inner, size, size), f"{name}.bias": (outer,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _residual(name: str, inner: int, outer: int) -> Shapes:
    shortcut = {} if inner == outer else _conv(f"{name}.conv_shortcut", inner, outer, 1)
    convs = _conv(f"{name}.conv1", inner, outer) | _conv(f"{name}.conv2", outer, outer)
    return _norm(f"{name}.norm1", inner) | _norm(f"{name}.norm2", outer) | convs | shortcut


def _middle(side: str, width: int) -> Shapes:
    name = f"{side}.mid_block"
    shapes = _residual(f"{name}.resnets.0", width, width) | _residual(f"{name}.resnets.1", width, width)
    shapes |= _norm(f"{name}.attentions.0.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        shapes |= {f"{name}.attentions.0.{part}.weight": (width, width), f"{name}.attentions.0.{part}.bias": (width,)}
    return shapes


def encode(
    params: Params, images: Float[Array, "batch height width 3"], of: Architecture, dtype: str
) -> tuple[Float[Array, "batch h w c"], Float[Array, "batch h w c"]]:
    """Mean and log-variance, float32 and unscaled, of each image's latent; images in [-1, 1].

    `dtype` is what convolutions and products compute in; norms and softmax are float32 always.
    """
    net = _Net(params, of.groups, dtype)
    x = net.conv("encoder.conv_in", images.astype(dtype))
    for i in range(len(of.widths)):
        block = f"encoder.down_blocks.{i}"
        for j in range(of.layers):
            x = net.residual(f"{block}.resnets.{j}", x)
        if i < len(of.widths) - 1:
            # One pixel below and to the right alone, as the published weights were trained.
            x = net.conv(f"{block}.downsamplers.0.conv", x, stride=2, padding=((0, 1), (0, 1)))
    x = net.conv("encoder.conv_out", net.activate("encoder.conv_norm_out", net.middle("encoder.mid_block", x)))
    mean, logvar = jnp.split(net.conv("quant_conv", x).astype(jnp.float32), 2, axis=-1)
    return mean, jnp.clip(logvar, *LOGVAR_RANGE)


def decode(
    params: Params, latents: Float[Array, "batch h w c"], of: Architecture, dtype: str
) -> Float[Array, "batch height width 3"]:
    """Images, float32 and about [-1, 1], of unscaled latents."""
    net = _Net(params, of.groups, dtype)
    x = net.conv("decoder.conv_in", net.conv("post_quant_conv", latents.astype(dtype)))
    x = net.middle("decoder.mid_block", x)
    for i in range(len(of.widths)):
        block = f"decoder.up_blocks.{i}"
        for j in range(of.layers + 1):
            x = net.residual(f"{block}.resnets.{j}", x)
        if i < len(of.widths) - 1:
            x = net.upsample(f"{block}.upsamplers.0.conv", x)
    return net.conv("decoder.conv_out", net.activate("decoder.conv_norm_out", x)).astype(jnp.float32)


@dataclass(frozen=True)
class _Net:
    """The layers, by the names of their parameters."""

    params: Params
    groups: int
    dtype: str

    @property
    def precision(self) -> jax.lax.Precision:
        """Exact float32 products: by default GPUs round them to 10 bits, and TPUs to 7."""
        return jax.lax.Precision.HIGHEST if self.dtype == "float32" else jax.lax.Precision.DEFAULT

    def weight(self, name: str) -> Array:
        return jnp.asarray(self.params[name], self.dtype)

    def conv(self, name: str, x: Array, stride: int = 1, padding: tuple[tuple[int, int], ...] | str = "SAME") -> Array:
        y = self.product(x, self.weight(f"{name}.weight"), stride, padding)
        return y + self.weight(f"{name}.bias")

    def product(self, x: Array, kernel: Array, stride: int, padding: tuple[tuple[int, int], ...] | str) -> Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=self.precision
        )

    def norm(self, name: str, x: Array) -> Array:
        """Group norm in float32: as one factor and one summand per image and channel."""
        count, *space, width = x.shape
        x32, size = x.astype(jnp.float32), prod(space) * (width // self.groups)

        def over_groups(values: Array) -> Array:
            sums = values.sum(tuple(range(1, x.ndim - 1))).reshape(count, self.groups, -1).sum(-1)
            return jnp.repeat(sums / size, width // self.groups, axis=1).reshape(count, *[1] * len(space), width)

        mean = over_groups(x32)
        factor = jax.lax.rsqrt(over_groups(jnp.square(x32 - mean)) + EPSILON) * self.params[f"{name}.weight"]
        return ((x32 - mean) * factor + self.params[f"{name}.bias"]).astype(self.dtype)

    def activate(self, name: str, x: Array) -> Array:
        return jax.nn.silu(self.norm(name, x))

    def residual(self, name: str, x: Array) -> Array:
        y = self.conv(f"{name}.conv1", self.activate(f"{name}.norm1", x))
        y = self.conv(f"{name}.conv2", self.activate(f"{name}.norm2", y))
        return y + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.params else x)

    def middle(self, name: str, x: Array) -> Array:
        x = self.residual(f"{name}.resnets.0", x)
        return self.residual(f"{name}.resnets.1", self.attend(f"{name}.attentions.0", x))

    def attend(self, name: str, x: Array) -> Array:
        """Self-attention of all positions, with one head."""
        count, height, width, channels = x.shape
        y = self.norm(f"{name}.group_norm", x).reshape(count, height * width, channels)
        query, key, value = (self.dense(f"{name}.{part}", y) for part in ("to_q", "to_k", "to_v"))
        scores = jnp.einsum("nqc,nkc->nqk", query, key, precision=self.precision).astype(jnp.float32)
        shares = jax.nn.softmax(scores / jnp.sqrt(jnp.float32(channels)), axis=-1).astype(self.dtype)
        y = jnp.einsum("nqk,nkc->nqc", shares, value, precision=self.precision)
        return x + self.dense(f"{name}.to_out.0", y).reshape(x.shape)

    def dense(self, name: str, x: Array) -> Array:
        return jnp.matmul(x, self.weight(f"{name}.weight"), precision=self.precision) + self.weight(f"{name}.bias")

    def upsample(self, name: str, x: Array) -> Array:
        """Each pixel doubled along both axes, then a 3x3 convolution: as four 2x2 ones, 4/9 of the products.

        Of an output row, the three rows that the kernel sees are two rows of `x`, one of them twice;
        which one depends on whether the output row is even. The same holds for columns.
        """
        kernel = jnp.asarray(self.params[f"{name}.weight"])

        def fold(kernel: Array, axis: int, odd: int) -> Array:
            a, b, c = jnp.split(kernel, 3, axis=axis)
            return jnp.concatenate([a + b, c] if odd else [a, b + c], axis=axis)

        def part(i: int, j: int) -> Array:
            small = fold(fold(kernel, 0, i), 1, j).astype(self.dtype)
            return self.product(x, small, 1, ((1 - i, i), (1 - j, j)))

        rows = [jnp.stack([part(i, 0), part(i, 1)], axis=3) for i in (0, 1)]  # (batch, h, w, 2, channels)
        count, height, width, _ = x.shape
        y = jnp.stack(rows, axis=2).reshape(count, 2 * height, 2 * width, -1)
        return y + self.weight(f"{name}.bias")
