"""What every network here is made of: dense layers, and embeddings of the time t and the step size d."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from shortcut_models.networks.base import Params

FINEST_LEVEL = 7
"""log2(128): the level at which the original network is asked for the instantaneous velocity."""


def xavier_uniform(key: Array, fan_in: int, fan_out: int) -> Float[Array, "fan_in fan_out"]:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = (6 / (fan_in + fan_out)) ** 0.5
    return jax.random.uniform(key, (fan_in, fan_out), minval=-bound, maxval=bound)


def init_dense(key: Array, fan_in: int, fan_out: int) -> Params:
    """A Xavier-uniform "kernel" (fan_in, fan_out) and a zero "bias" (fan_out,)."""
    return {"kernel": xavier_uniform(key, fan_in, fan_out), "bias": jnp.zeros(fan_out)}


def dense(p: Params, x: Float[Array, "... fan_in"]) -> Float[Array, "... fan_out"]:
    """`x @ kernel + bias`, computed in the dtype of x."""
    # As one flat matrix product: left to contract over batch and tokens, XLA's CPU backend needs a fifth longer.
    rows = x.reshape(-1, x.shape[-1]) @ p["kernel"].astype(x.dtype) + p["bias"].astype(x.dtype)
    return rows.reshape(*x.shape[:-1], -1)


def spread() -> bool:
    """Whether parameters may lie in parts on several devices: within `jax.set_mesh`, as fsdp is compiled."""
    return not jax.sharding.get_abstract_mesh().empty


def whole(p: Params) -> Params:
    """The parameters, whole on every device that uses them; as they are where none are spread.

    Called on one block's parameters at a time, it is what makes fsdp fsdp. Left to itself, XLA also
    moves activations instead, and computes matrix products in parts.
    """
    if not spread():
        return p

    return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, PartitionSpec()), p)


@jax.custom_jvp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU by tanh: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks & Gimpel, arXiv 1606.08415).

    `jax.nn.gelu(x, approximate=True)` with the derivative written out: one tanh serves both, and the
    backward pass keeps one array, the slope, instead of all the steps on the way.
    """
    return _gelu_and_slope(x)[0]


@gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = _gelu_and_slope(*primals)
    return value, slope * tangents[0]


def _gelu_and_slope(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    square, root = x * x, (2 / math.pi) ** 0.5
    tanh = jnp.tanh(root * x * (1 + 0.044715 * square))
    half = 0.5 * (1 + tanh)
    return x * half, half + 0.5 * root * x * (1 - tanh * tanh) * (1 + 3 * 0.044715 * square)


def sinusoid(x: Float[Array, " batch"], width: int = 256) -> Float[Array, "batch width"]:
    """Cosines, then sines, of x at width/2 frequencies falling from 1 to 1/10000 (Vaswani et al. 2017)."""
    half = width // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = x[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def step_level(d: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """The original's index of a step size, k = log2(1/d): 0 for d=1, 7 for d <= 1/128, real in between."""
    return -jnp.log2(jnp.maximum(d, 2.0**-FINEST_LEVEL))


def init_time_embedding(key: Array, width: int, frequencies: int = 256) -> Params:
    """Two dense layers from the sinusoid to the conditioning vector; weights normal with deviation 0.02."""
    first, second = jax.random.split(key)
    return {
        "in": {"kernel": 0.02 * jax.random.normal(first, (frequencies, width)), "bias": jnp.zeros(width)},
        "out": {"kernel": 0.02 * jax.random.normal(second, (width, width)), "bias": jnp.zeros(width)},
    }


def time_embedding(p: Params, x: Float[Array, "batch frequencies"]) -> Float[Array, "batch width"]:
    """Dense, SiLU, dense."""
    return dense(p["out"], jax.nn.silu(dense(p["in"], x)))


def rows_of(table: Float[Array, "labels width"], labels: Sequence[int]) -> Float[Array, "chosen width"]:
    """The rows of these labels, of which the null label is the last; -1 is the mean of all others."""
    table = jnp.asarray(table)
    return jnp.concatenate([table, table[:-1].mean(0, keepdims=True)])[jnp.asarray(labels)]


def without_input(p: Params, x: Float[Array, "1 frequencies"]) -> Params:
    """The embedding that is always what `time_embedding(p, x)` is: it is the new bias, and the last kernel is zero.

    The first layer stays, so that the last one has a gradient that differs with the input.
    """
    with jax.default_matmul_precision("highest"):
        bias = time_embedding(p, x)[0]
    return {"in": p["in"], "out": {"kernel": jnp.zeros_like(p["out"]["kernel"]), "bias": bias}}
