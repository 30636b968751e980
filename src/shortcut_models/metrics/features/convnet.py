"""The network of our small classifiers: a few 3x3 convolutions, a dense layer, the labels."""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from safetensors.numpy import load_file

from shortcut_models import sharding

EXACT = lax.Precision.HIGHEST
"""In float32 on every device: by default GPUs and TPUs round products, and a metric would depend on the device."""
Weights = dict[str, Array]
Images = Float[Array, "batch height width channels"]


def hidden_features(weights: Weights, images: Images, strides: tuple[int, ...]) -> Float[Array, "batch features"]:
    """Activations of the last hidden layer, for images in [-1, 1]."""
    x = images
    for number, stride in enumerate(strides, start=1):
        x = lax.conv_general_dilated(
            x,
            weights[f"conv{number}.kernel"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=EXACT,
        )
        x = jax.nn.relu(x + weights[f"conv{number}.bias"])
    x = jnp.matmul(x.reshape(len(x), -1), weights["dense.kernel"], precision=EXACT)
    return jax.nn.relu(x + weights["dense.bias"])


def logits(weights: Weights, hidden: Float[Array, "batch features"]) -> Float[Array, "batch classes"]:
    """Unnormalised log-probabilities of the classes from the features."""
    return jnp.matmul(hidden, weights["logits.kernel"], precision=EXACT) + weights["logits.bias"]


@cache
def load(file: Path) -> Weights:
    """The weights of a file, as float32."""
    return {name: jnp.asarray(array, jnp.float32) for name, array in load_file(file).items()}


@cache
def spread(file: Path) -> tuple[Mesh, Weights]:
    """The devices of this process, and the weights of a file on each of them."""
    mesh = sharding.make_mesh(jax.local_devices())
    return mesh, jax.device_put(load(file), sharding.replicated(mesh))


@partial(jax.jit, static_argnums=2)
def examine(
    weights: Weights, images: Images, strides: tuple[int, ...]
) -> tuple[Float[Array, "batch features"], Int[Array, " batch"]]:
    """Features and predicted labels."""
    hidden = hidden_features(weights, images, strides)
    return hidden, jnp.argmax(logits(weights, hidden), axis=-1)
