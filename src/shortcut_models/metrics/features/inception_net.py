"""The network of 2015-12-05 that FID is defined by, in plain JAX, with the names of its published PyTorch weights.

Szegedy et al. (arXiv 1512.00567) as TensorFlow's graph has it: average pools leave the padding out of their count,
the pool branch of the last block takes the maximum, and there are 1,008 outputs. Convolutions are followed by batch
normalisation with an epsilon of 1e-3, which is folded into them, and by a ReLU. All products are exact float32.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from shortcut_models.metrics.features.inception_shapes import BLOCKS, CONVOLUTIONS, PARTS, STEM

Weights = dict[str, Array]
Images = Float[Array, "batch height width channels"]
Branch = Callable[..., Array]
"""A block's convolutions, by the last part of their names."""

EXACT = lax.Precision.HIGHEST
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
SPATIAL_CHANNELS = 7  # Of sFID: the first of 192, at 17 x 17 places.

A, B, C, D, E = (tuple(BLOCKS[name]) for name in ("5b", "6a", "6b", "7a", "7b"))
"""The names of the branches, in the order in which the blocks of a kind take them."""


def fold(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Kernels (height, width, in, out) and biases of the convolutions with their normalisation; "fc" as (in, out)."""
    folded = {"fc.kernel": tensors["fc.weight"].T, "fc.bias": tensors["fc.bias"]}
    for name in CONVOLUTIONS:
        kernel, scale, shift, mean, variance = (np.asarray(tensors[f"{name}.{part}"], np.float64) for part in PARTS)
        factor = scale / np.sqrt(variance + 1e-3)
        folded[f"{name}.kernel"] = (kernel * factor[:, None, None, None]).transpose(2, 3, 1, 0)
        folded[f"{name}.bias"] = shift - mean * factor
    return {name: np.ascontiguousarray(array, np.float32) for name, array in folded.items()}


def features(weights: Weights, images: Images) -> dict[str, Array]:
    """What the metrics use, for images (n, 299, 299, 3) in [-1, 1].

    "pool" (n, 2048): means of the last block; "spatial" (n, 2023): 17 x 17 x 7 in the order row, column, channel, of
    the first branch of block 6d; "logits" and "logits_unbiased" (n, 1008): outputs with and without their bias.
    """
    conv, stem = partial(_conv, weights), tuple(STEM)
    x = conv(images, stem[0], 2, "VALID")
    x = _max_pool(conv(conv(x, stem[1], 1, "VALID"), stem[2]))
    x = _max_pool(conv(conv(x, stem[3], 1, "VALID"), stem[4], 1, "VALID"))
    for block in ("5b", "5c", "5d"):
        x = _block_a(partial(_within, conv, block), x)
    x = _block_b(partial(_within, conv, "6a"), x)
    for block in ("6b", "6c"):
        x = _block_c(partial(_within, conv, block), x)
    spatial = conv(x, "Mixed_6d.branch1x1")[..., :SPATIAL_CHANNELS]
    for block in ("6d", "6e"):
        x = _block_c(partial(_within, conv, block), x)
    x = _block_d(partial(_within, conv, "7a"), x)
    x = _block_e(partial(_within, conv, "7b"), x, _mean_pool)
    x = _block_e(partial(_within, conv, "7c"), x, lambda given: _max_pool(given, 1, "SAME"))
    pool = x.mean(axis=(1, 2))
    logits = jnp.matmul(pool, weights["fc.kernel"], precision=EXACT)
    return {
        "pool": pool,
        "spatial": spatial.reshape(len(spatial), -1),
        "logits": logits + weights["fc.bias"],
        "logits_unbiased": logits,
    }


def resize(
    images: Images, down: Float[Array, "rows height"], across: Float[Array, "columns width"]
) -> Float[Array, "batch rows columns channels"]:
    """Resize by a matrix along each axis, the width first as Pillow does."""
    wide = jnp.einsum("jw,nhwc->nhjc", across, images, precision=EXACT)
    return jnp.einsum("ih,nhjc->nijc", down, wide, precision=EXACT)


def _conv(weights: Weights, x: Array, name: str, stride: int = 1, padding: str = "SAME") -> Array:
    kernel = weights[f"{name}.kernel"]
    out = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS, precision=EXACT)
    return jax.nn.relu(out + weights[f"{name}.bias"])


def _within(conv: Branch, block: str, x: Array, *branches: str, stride: int = 1, padding: str = "SAME") -> Array:
    """Convolutions of a block one after the other; stride and padding are those of the last."""
    for branch in branches[:-1]:
        x = conv(x, f"Mixed_{block}.{branch}")
    return conv(x, f"Mixed_{block}.{branches[-1]}", stride, padding)


def _max_pool(x: Array, stride: int = 2, padding: str = "VALID") -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _mean_pool(x: Array) -> Array:
    """Means over 3x3 places, of those that are inside."""
    total = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    ones = jnp.ones((1, *x.shape[1:3], 1))
    inside = lax.reduce_window(ones, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    return total / inside


def _join(*parts: Array) -> Array:
    return jnp.concatenate(parts, axis=-1)


def _block_a(conv: Branch, x: Array) -> Array:
    return _join(conv(x, A[0]), conv(x, A[1], A[2]), conv(x, A[3], A[4], A[5]), conv(_mean_pool(x), A[6]))


def _block_b(conv: Branch, x: Array) -> Array:
    halve = partial(conv, stride=2, padding="VALID")
    return _join(halve(x, B[0]), halve(x, *B[1:]), _max_pool(x))


def _block_c(conv: Branch, x: Array) -> Array:
    return _join(conv(x, C[0]), conv(x, *C[1:4]), conv(x, *C[4:9]), conv(_mean_pool(x), C[9]))


def _block_d(conv: Branch, x: Array) -> Array:
    halve = partial(conv, stride=2, padding="VALID")
    return _join(halve(x, *D[:2]), halve(x, *D[2:]), _max_pool(x))


def _block_e(conv: Branch, x: Array, pool: Callable[[Array], Array]) -> Array:
    single, double = conv(x, E[1]), conv(x, E[4], E[5])
    return _join(
        conv(x, E[0]),
        *(conv(single, branch) for branch in E[2:4]),
        *(conv(double, branch) for branch in E[6:8]),
        conv(pool(x), E[8]),
    )
