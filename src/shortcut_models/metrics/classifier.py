"""A small convolutional classifier of 8x8 digits: its features and labels measure generated digits.

The weights come with the package. `python -m shortcut_models.metrics.classifier` trains them anew
(a minute on a CPU) on four fifths of the digits, and prints the accuracy on the others.
Features are named by VERSION: other weights are another metric.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from safetensors.numpy import load_file, save_file

VERSION = "digitnet1"
WEIGHTS = Path(__file__).with_name(f"{VERSION}.safetensors")
FEATURES = 64

Weights = dict[str, Array]
Images = Float[Array, "batch height width channels"]


def init(key: Array) -> Weights:
    """He-normal weights (He et al., arXiv 1502.01852) and zero biases."""
    shapes = {"conv1": (3, 3, 1, 16), "conv2": (3, 3, 16, 32), "conv3": (3, 3, 32, 48)}
    shapes |= {"dense": (4 * 4 * 48, FEATURES), "logits": (FEATURES, 10)}
    weights: Weights = {}
    for layer, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items(), strict=True):
        weights[f"{name}.kernel"] = jax.random.normal(layer, shape) * (2 / np.prod(shape[:-1])) ** 0.5
        weights[f"{name}.bias"] = jnp.zeros(shape[-1])
    return weights


def features(weights: Weights, images: Images) -> Float[Array, "batch features"]:
    """Activations of the last hidden layer, for images (batch, 8, 8, 1) in [-1, 1]."""
    x = images
    for name, stride in (("conv1", 1), ("conv2", 1), ("conv3", 2)):
        x = lax.conv_general_dilated(
            x, weights[f"{name}.kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + weights[f"{name}.bias"])
    return jax.nn.relu(x.reshape(len(x), -1) @ weights["dense.kernel"] + weights["dense.bias"])


def logits(weights: Weights, hidden: Float[Array, "batch features"]) -> Float[Array, "batch classes"]:
    """Unnormalised log-probabilities of the ten digits from the features."""
    return hidden @ weights["logits.kernel"] + weights["logits.bias"]


def load() -> Weights:
    """The weights that come with the package."""
    return {name: jnp.asarray(array) for name, array in load_file(WEIGHTS).items()}


@jax.jit
def examine(weights: Weights, images: Images) -> tuple[Float[Array, "batch features"], Int[Array, " batch"]]:
    """Features and predicted labels."""
    hidden = features(weights, images)
    return hidden, jnp.argmax(logits(weights, hidden), axis=-1)


def train(images: np.ndarray, labels: np.ndarray, steps: int = 1500, seed: int = 0) -> Weights:
    """Fit to images (n, 8, 8, 1) in [-1, 1], randomly shifted by up to one pixel, with AdamW."""
    import optax

    key = jax.random.key(seed)
    x, y = jnp.asarray(jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)), jnp.asarray(labels)
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)

    def loss(weights: Weights, key: Array) -> Array:
        pick, shift, drop = jax.random.split(key, 3)
        rows = jax.random.randint(pick, (128,), 0, len(x))
        corner = jax.random.randint(shift, (128, 2), 0, 3)
        cut = jax.vmap(lambda image, at: lax.dynamic_slice(image, (at[0], at[1], 0), (8, 8, 1)))(x[rows], corner)
        hidden = features(weights, cut)
        hidden = jnp.where(jax.random.bernoulli(drop, 0.5, hidden.shape), 2 * hidden, 0)
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights, hidden), y[rows]).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Weights, state: optax.OptState, index: Array) -> tuple[Weights, optax.OptState]:
        gradient = jax.grad(loss)(weights, jax.random.fold_in(key, index))
        updates, state = optimizer.update(gradient, state, weights)
        moved: Any = optax.apply_updates(weights, updates)
        return moved, state

    weights = init(jax.random.fold_in(key, 2**31))
    state = optimizer.init(weights)
    for index in range(steps):
        weights, state = step(weights, state, np.uint32(index))
    return weights


def held_out(count: int) -> Bool[np.ndarray, " count"]:
    """Which examples the classifier never saw: a random fifth (the digits' order is not random)."""
    return np.random.default_rng(0).permutation(count) % 5 == 0


def main(path: Path) -> float:
    """Train, write the weights to `path`, and return the accuracy on the digits held out."""
    from shortcut_models.data.digits import Digits
    from shortcut_models.data.pipeline import to_network

    source = Digits()
    images, kept = to_network(source.images), held_out(len(source))
    weights = train(images[~kept], source.labels[~kept])
    accuracy = float((examine(weights, jnp.asarray(images[kept]))[1] == source.labels[kept]).mean())
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    save_file(arrays, path, metadata={"version": VERSION, "held_out_accuracy": f"{accuracy:.4f}"})
    return accuracy


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    print(f"{target}: {main(target):.4f} of the held-out digits right")
