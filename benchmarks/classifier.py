"""Train the classifiers that measure images: `python -m benchmarks.classifier digits|glyphs|fashion [FILE]`.

A minute for the digits on a CPU, some ten for the others. Writes the weights to FILE, by default into the package, and
the accuracy on images that are held out to FILE with .json at its end, by default into benchmarks/results. Other
weights are another metric: give them a new version.
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
from jaxtyping import Array
from safetensors.numpy import save_file

from shortcut_models.data.pixels import to_network
from shortcut_models.errors import InputError
from shortcut_models.files import write_json
from shortcut_models.metrics.features.classifier import DIGITNET1, FASHIONNET1, GLYPHNET1, Classifier, held_out
from shortcut_models.metrics.features.convnet import Weights, examine, hidden_features, logits
from shortcut_models.metrics.references import ENDLESS, read
from shortcut_models.presets import get_preset
from shortcut_models.provenance import provenance

FEATURES = 64
BATCH = 128
TESTED = 6200  # Held-out images where there is no end of them.
RESULTS = Path(__file__).with_name("results")

Batches = Iterator[tuple[Any, Any]]
"""Images in [-1, 1] and labels."""


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained."""

    net: Classifier
    steps: int
    dropout: float = 0.0
    stored: type = np.float32
    """Type of the numbers in the file; the network computes with float32."""


RECIPES = {
    "digits": Recipe(DIGITNET1, steps=1500, dropout=0.5),
    "glyphs": Recipe(GLYPHNET1, steps=6000, stored=np.float16),
    "fashion": Recipe(FASHIONNET1, steps=4000, dropout=0.5, stored=np.float16),
}


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


def train(recipe: Recipe, data: Batches, seed: int = 0) -> Weights:
    """Fit to batches with AdamW, and dropout if the recipe has any."""
    import optax

    key, strides = jax.random.key(seed), recipe.net.strides
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, recipe.steps), weight_decay=1e-3)

    def loss(weights: Weights, x: Array, y: Array, key: Array) -> Array:
        hidden = hidden_features(weights, x, strides)
        if recipe.dropout:
            kept = jax.random.bernoulli(jax.random.split(key, 3)[2], 1 - recipe.dropout, hidden.shape)
            hidden = jnp.where(kept, hidden / (1 - recipe.dropout), 0)
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights, hidden), y).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Weights, state: optax.OptState, x: Array, y: Array, index: Array) -> Any:
        gradient = jax.grad(loss)(weights, x, y, jax.random.fold_in(key, index))
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    weights = init(recipe.net, jax.random.fold_in(key, 2**31))
    state = optimizer.init(weights)
    for index in range(recipe.steps):
        x, y = next(data)
        weights, state = step(weights, state, x, y, np.uint32(index))
    return weights


def shifted_batches(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> Batches:
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
        return cut(x[rows], corner), y[rows]

    return map(draw, map(np.uint32, range(2**32)))


def split(name: str, seed: int = 0) -> tuple[Batches, np.ndarray, np.ndarray]:
    """Endless training batches of a preset's data set, and the images in [-1, 1] and labels to test on."""
    data = get_preset(name).data
    source = data.open("train")
    if data.held_out is not None and len(source) > ENDLESS:
        from shortcut_models.data.pipeline import batch_dataset, batches

        tested, tested_labels = read(data.open(data.held_out), np.arange(TESTED))
        drawn = batches(batch_dataset(source, BATCH, seed), start=0, threads=1)
        return ((to_network(batch["image"]), batch["label"]) for batch in drawn), to_network(tested), tested_labels
    images, labels = read(source, np.arange(len(source)))
    images = to_network(images)
    if data.held_out is None:
        kept = held_out(len(source))
        return shifted_batches(images[~kept], labels[~kept], seed), images[kept], labels[kept]
    other = data.open(data.held_out)
    tested, tested_labels = read(other, np.arange(len(other)))
    return shifted_batches(images, labels, seed), to_network(tested), tested_labels


def main(name: str, path: Path | None = None) -> float:
    """Train on a data set, write weights and held-out accuracy to `path` or where ours are, return the accuracy.

    Raises InputError if the data set has no classifier.
    """
    if name not in RECIPES:
        raise InputError(f"data set {name!r} has no classifier: those with are {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    data, images, labels = split(name)
    weights = train(recipe, data)
    # Rounded first: what is measured is what is stored.
    arrays = {key: np.ascontiguousarray(array, recipe.stored) for key, array in weights.items()}
    rounded = {key: jnp.asarray(array, jnp.float32) for key, array in arrays.items()}
    accuracy = float((examine(rounded, jnp.asarray(images), recipe.net.strides)[1] == labels).mean())
    metadata = {"version": recipe.net.version, "held_out_accuracy": f"{accuracy:.4f}"}
    save_file(arrays, path or recipe.net.file, metadata=metadata)
    report = {**metadata, "held_out_images": len(labels), "steps": recipe.steps}
    report |= provenance(f"make classifier DATASET={name}")
    write_json(path.with_suffix(".json") if path else RESULTS / f"classifier-{name}.json", report)
    return accuracy


if __name__ == "__main__":
    try:
        print(f"{main(sys.argv[1], *map(Path, sys.argv[2:3])):.4f} of the held-out {sys.argv[1]} right")
    except (IndexError, InputError) as error:
        sys.exit(f"usage: python -m benchmarks.classifier {'|'.join(RECIPES)} [FILE]: {error}")
