"""Small convolutional classifiers of ours: their features and labels measure generated images.

The weights come with the package. `python -m shortcut_models.metrics.classifier digits` (a minute on
a CPU) or `... glyphs` (some ten) trains them anew on images that are not held out, and prints the
accuracy on those that are. Features are named by the version: other weights are another metric.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from safetensors.numpy import load_file, save_file

from shortcut_models.data.digits import Digits
from shortcut_models.data.glyphs import Glyphs
from shortcut_models.data.pipeline import Batch, batch_dataset, batches, to_network
from shortcut_models.errors import InputError

FEATURES = 64
BATCH = 128

Weights = dict[str, Array]
Images = Float[Array, "batch height width channels"]


@dataclass(frozen=True)
class Classifier:
    """A network's sizes, and how it is trained."""

    version: str
    image_shape: tuple[int, int, int]
    num_classes: int
    convolutions: tuple[tuple[int, int], ...]
    """Channels and stride of each 3x3 convolution; a dense layer of FEATURES follows."""
    steps: int
    dropout: float = 0.0
    stored: type = np.float32
    """Type of the numbers in the file; the network computes with float32."""

    @property
    def file(self) -> Path:
        """The weights that come with the package."""
        return Path(__file__).with_name(f"{self.version}.safetensors")


DIGITS = Classifier("digitnet1", (8, 8, 1), 10, ((16, 1), (32, 1), (48, 2)), steps=1500, dropout=0.5)
GLYPHS = Classifier("glyphnet1", (32, 32, 3), 62, ((24, 2), (48, 2), (64, 1), (64, 2)), steps=6000, stored=np.float16)
CLASSIFIERS = {"digits": DIGITS, "glyphs": GLYPHS}


def init(net: Classifier, key: Array) -> Weights:
    """He-normal weights (He et al., arXiv 1502.01852) and zero biases."""
    (height, width, before), shapes = net.image_shape, {}
    for number, (channels, stride) in enumerate(net.convolutions, start=1):
        shapes[f"conv{number}"] = (3, 3, before, channels)
        height, width, before = -(-height // stride), -(-width // stride), channels
    shapes |= {"dense": (height * width * before, FEATURES), "logits": (FEATURES, net.num_classes)}
    weights: Weights = {}
    for layer, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items(), strict=True):
        weights[f"{name}.kernel"] = jax.random.normal(layer, shape) * (2 / np.prod(shape[:-1])) ** 0.5
        weights[f"{name}.bias"] = jnp.zeros(shape[-1])
    return weights


def features(net: Classifier, weights: Weights, images: Images) -> Float[Array, "batch features"]:
    """Activations of the last hidden layer, for images in [-1, 1]."""
    x = images
    for number, (_, stride) in enumerate(net.convolutions, start=1):
        x = lax.conv_general_dilated(
            x, weights[f"conv{number}.kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + weights[f"conv{number}.bias"])
    return jax.nn.relu(x.reshape(len(x), -1) @ weights["dense.kernel"] + weights["dense.bias"])


def logits(weights: Weights, hidden: Float[Array, "batch features"]) -> Float[Array, "batch classes"]:
    """Unnormalised log-probabilities of the classes from the features."""
    return hidden @ weights["logits.kernel"] + weights["logits.bias"]


def load(net: Classifier) -> Weights:
    """The weights that come with the package, as float32."""
    return {name: jnp.asarray(array, jnp.float32) for name, array in load_file(net.file).items()}


@partial(jax.jit, static_argnums=0)
def examine(
    net: Classifier, weights: Weights, images: Images
) -> tuple[Float[Array, "batch features"], Int[Array, " batch"]]:
    """Features and predicted labels."""
    hidden = features(net, weights, images)
    return hidden, jnp.argmax(logits(weights, hidden), axis=-1)


def train(net: Classifier, data: Iterator[Batch], steps: int, seed: int = 0) -> Weights:
    """Fit to batches {"x1": images in [-1, 1], "label"} with AdamW, and dropout if the network has any."""
    import optax

    key = jax.random.key(seed)
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)

    def loss(weights: Weights, x: Array, y: Array, key: Array) -> Array:
        hidden = features(net, weights, x)
        if net.dropout:
            kept = jax.random.bernoulli(jax.random.split(key, 3)[2], 1 - net.dropout, hidden.shape)
            hidden = jnp.where(kept, hidden / (1 - net.dropout), 0)
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights, hidden), y).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(
        weights: Weights, state: optax.OptState, x: Array, y: Array, index: Array
    ) -> tuple[Weights, optax.OptState]:
        gradient = jax.grad(loss)(weights, x, y, jax.random.fold_in(key, index))
        updates, state = optimizer.update(gradient, state, weights)
        moved: Any = optax.apply_updates(weights, updates)
        return moved, state

    weights = init(net, jax.random.fold_in(key, 2**31))
    state = optimizer.init(weights)
    for index in range(steps):
        batch = next(data)
        weights, state = step(weights, state, batch["x1"], batch["label"], np.uint32(index))
    return weights


def shifted_batches(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> Iterator[Batch]:
    """Batches drawn from images (n, height, width, channels) in [-1, 1], shifted by up to one pixel."""
    height, width, channels = images.shape[1:]
    key = jax.random.key(seed)
    x, y = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1), jnp.asarray(labels)

    @jax.jit
    def draw(index: Array) -> Any:
        pick, shift, _ = jax.random.split(jax.random.fold_in(key, index), 3)
        rows = jax.random.randint(pick, (BATCH,), 0, len(x))
        corner = jax.random.randint(shift, (BATCH, 2), 0, 3)
        cut = jax.vmap(lambda image, at: lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, channels)))
        return {"x1": cut(x[rows], corner), "label": y[rows]}

    return map(draw, map(np.uint32, range(2**32)))


def held_out(count: int) -> Bool[np.ndarray, " count"]:
    """Which digits the classifier never saw: a random fifth (the digits' order is not random)."""
    return np.random.default_rng(0).permutation(count) % 5 == 0


def split(dataset: str, seed: int = 0) -> tuple[Iterator[Batch], np.ndarray, np.ndarray]:
    """Endless training batches, and the images in [-1, 1] and labels to test on."""
    if dataset == "digits":
        source = Digits()
        images, kept = to_network(source.images), held_out(len(source))
        return shifted_batches(images[~kept], source.labels[~kept], seed), images[kept], source.labels[kept]
    tests = np.arange(6200)
    images = to_network(Glyphs(held_out=True).stack(tests))
    training = batch_dataset(Glyphs(), BATCH, seed)
    return batches(training, start=0, threads=1), images, tests % GLYPHS.num_classes


def main(dataset: str, path: Path | None = None) -> float:
    """Train on a dataset, write the weights to `path` or into the package, return the held-out accuracy.

    Raises InputError if the dataset has no classifier.
    """
    if dataset not in CLASSIFIERS:
        raise InputError(f"dataset {dataset!r} has no classifier: those with are {', '.join(CLASSIFIERS)}.")
    net = CLASSIFIERS[dataset]
    data, images, labels = split(dataset)
    weights = train(net, data, net.steps)
    # Rounded first: what is measured is what is stored.
    arrays = {name: np.ascontiguousarray(array, net.stored) for name, array in weights.items()}
    rounded = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    accuracy = float((examine(net, rounded, jnp.asarray(images))[1] == labels).mean())
    metadata = {"version": net.version, "held_out_accuracy": f"{accuracy:.4f}"}
    save_file(arrays, path or net.file, metadata=metadata)
    return accuracy


if __name__ == "__main__":
    try:
        print(f"{main(sys.argv[1], *map(Path, sys.argv[2:3])):.4f} of the held-out {sys.argv[1]} right")
    except (IndexError, InputError) as error:
        sys.exit(f"usage: python -m shortcut_models.metrics.classifier {'|'.join(CLASSIFIERS)} [FILE]: {error}")
