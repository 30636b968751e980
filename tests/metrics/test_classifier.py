"""The classifier whose features and labels measure digits: other weights would be another metric."""

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from shortcut_models.data import Digits
from shortcut_models.data.pipeline import to_network
from shortcut_models.metrics import classifier


def test_the_weights_are_those_that_the_metrics_are_named_after() -> None:
    # Numbers of different weights cannot be compared: whoever trains them anew gives them a new VERSION.
    assert classifier.VERSION == "digitnet1"
    digest = hashlib.sha256(classifier.WEIGHTS.read_bytes()).hexdigest()
    assert digest == "810a5b94aeaef2e1ab7d68f6166d822bcc2177054c577dcd80f561ddeab855e7"


def test_the_weights_fill_the_network() -> None:
    weights = classifier.load()
    fresh = jax.eval_shape(classifier.init, jax.random.key(0))
    assert {name: (a.shape, a.dtype) for name, a in weights.items()} == {
        name: (a.shape, a.dtype) for name, a in fresh.items()
    }
    hidden, found = classifier.examine(weights, jnp.zeros((2, 8, 8, 1)))
    assert hidden.shape == (2, classifier.FEATURES)
    assert found.shape == (2,)


def test_a_convolution_of_the_network_is_a_sum_over_its_window() -> None:
    # The first layer by hand at one inner pixel, carried through by a network that only passes it on.
    weights = {name: np.zeros(a.shape, np.float32) for name, a in classifier.load().items()}
    image = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    kernel = np.random.default_rng(1).uniform(0, 1, (3, 3)).astype(np.float32)
    weights["conv1.kernel"][:, :, 0, 0] = kernel
    weights["conv1.bias"][0] = 0.25
    weights["conv2.kernel"][1, 1, 0, 0] = 1
    # Stride 2 over 8 pixels pads behind only, so that output (i, j) is centred on pixel (2i + 1, 2j + 1).
    weights["conv3.kernel"][1, 1, 0, 0] = 1
    weights["dense.kernel"][(2 * 4 + 1) * 48, 5] = 2
    found = classifier.features({name: jnp.asarray(a) for name, a in weights.items()}, jnp.asarray(image))
    expected = 2 * (np.sum(image[0, 4:7, 2:5, 0] * kernel) + 0.25)
    np.testing.assert_allclose(found[0, 5], expected, rtol=1e-5)
    assert float(jnp.abs(found).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_random_fifth_is_held_out_and_stays_so() -> None:
    kept = classifier.held_out(1797)
    assert kept.sum() == 360
    np.testing.assert_array_equal(kept, classifier.held_out(1797))
    assert len(np.unique(Digits().labels[kept])) == 10


def test_training_lowers_the_loss_and_writes_what_it_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(weights: classifier.Weights) -> float:
        source = Digits()
        hidden = classifier.features(weights, jnp.asarray(to_network(source.images)))
        scores = classifier.logits(weights, hidden)
        return float(optax.softmax_cross_entropy_with_integer_labels(scores, jnp.asarray(source.labels)).mean())

    short = classifier.train
    monkeypatch.setattr(classifier, "train", lambda images, labels: short(images, labels, steps=40))
    path = tmp_path / "weights.safetensors"
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes its step count with floats.
        accuracy = classifier.main(path)
    written = {name: jnp.asarray(array) for name, array in load_file(path).items()}
    start = classifier.init(jax.random.fold_in(jax.random.key(0), 2**31))
    assert loss(written) < 0.8 * loss(start)
    source, kept = Digits(), classifier.held_out(1797)
    found = classifier.examine(written, jnp.asarray(to_network(source.images[kept])))[1]
    assert accuracy == pytest.approx(float((found == source.labels[kept]).mean()))
