"""The classifiers whose features and labels measure images: other weights would be another metric."""

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from shortcut_models import InputError
from shortcut_models.data import Digits, Glyphs
from shortcut_models.data.pipeline import to_network
from shortcut_models.metrics import classifier
from shortcut_models.metrics.classifier import DIGITS, GLYPHS, Classifier

BOTH = pytest.mark.parametrize("net", [DIGITS, GLYPHS], ids=["digits", "glyphs"])
DIGESTS = {
    "digitnet1": "810a5b94aeaef2e1ab7d68f6166d822bcc2177054c577dcd80f561ddeab855e7",
    "glyphnet1": "1eb01a0ac518b6e9b9d06a2ef26675293b5ec18b38b4ce115ae3efafddfd0c56",
}


@BOTH
def test_the_weights_are_those_that_the_metrics_are_named_after(net: Classifier) -> None:
    # Numbers of different weights cannot be compared: whoever trains them anew gives them a new version.
    assert hashlib.sha256(net.file.read_bytes()).hexdigest() == DIGESTS[net.version]
    assert net.file.stat().st_size < 300_000
    with safe_open(net.file, "numpy") as file:
        assert file.metadata()["version"] == net.version


@BOTH
def test_the_weights_fill_the_network(net: Classifier) -> None:
    weights = classifier.load(net)
    fresh = jax.eval_shape(lambda key: classifier.init(net, key), jax.random.key(0))
    assert {name: (a.shape, a.dtype) for name, a in weights.items()} == {
        name: (a.shape, a.dtype) for name, a in fresh.items()
    }
    assert {array.dtype for array in load_file(net.file).values()} == {np.dtype(net.stored)}
    hidden, found = classifier.examine(net, weights, jnp.zeros((2, *net.image_shape)))
    assert hidden.shape == (2, classifier.FEATURES)
    assert found.shape == (2,)


def test_a_convolution_of_the_network_is_a_sum_over_its_window() -> None:
    # The first layer by hand at one inner pixel, carried through by a network that only passes it on.
    weights = {name: np.zeros(a.shape, np.float32) for name, a in classifier.load(DIGITS).items()}
    image = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    kernel = np.random.default_rng(1).uniform(0, 1, (3, 3)).astype(np.float32)
    weights["conv1.kernel"][:, :, 0, 0] = kernel
    weights["conv1.bias"][0] = 0.25
    weights["conv2.kernel"][1, 1, 0, 0] = 1
    # Stride 2 over 8 pixels pads behind only, so that output (i, j) is centred on pixel (2i + 1, 2j + 1).
    weights["conv3.kernel"][1, 1, 0, 0] = 1
    weights["dense.kernel"][(2 * 4 + 1) * 48, 5] = 2
    found = classifier.features(DIGITS, {name: jnp.asarray(a) for name, a in weights.items()}, jnp.asarray(image))
    expected = 2 * (np.sum(image[0, 4:7, 2:5, 0] * kernel) + 0.25)
    np.testing.assert_allclose(found[0, 5], expected, rtol=1e-5)
    assert float(jnp.abs(found).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_random_fifth_of_the_digits_is_held_out_and_stays_so() -> None:
    kept = classifier.held_out(1797)
    assert kept.sum() == 360
    np.testing.assert_array_equal(kept, classifier.held_out(1797))
    assert len(np.unique(Digits().labels[kept])) == 10


def test_a_drawn_digit_is_one_of_those_given_shifted_by_at_most_a_pixel() -> None:
    # Images with one bright pixel in the middle: it moves to one of nine places, or the label would be wrong.
    images = np.full((4, 8, 8, 1), -1, np.float32)
    images[:, 4, 4, 0] = np.arange(4) / 4
    batch = next(classifier.shifted_batches(images, np.arange(4)))
    assert batch["x1"].shape == (classifier.BATCH, 8, 8, 1)
    _, rows, columns, _ = np.nonzero(np.asarray(batch["x1"]) > -1)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}
    np.testing.assert_array_equal(batch["x1"].max(axis=(1, 2, 3)), batch["label"] / 4)


def test_the_glyphs_to_test_on_are_none_to_train_on() -> None:
    data, images, labels = classifier.split("glyphs")
    assert np.bincount(labels).tolist() == [100] * 62
    np.testing.assert_array_equal(images[70], to_network(Glyphs(held_out=True)[70]["image"][None])[0])
    for batch in islice(data, 2):
        assert batch["x1"].shape == (classifier.BATCH, 32, 32, 3)
        assert not any((image == images[labels == label]).all(axis=(1, 2, 3)).any() for image, label in _rows(batch))


def _rows(batch: dict[str, np.ndarray]) -> zip:
    return zip(batch["x1"], batch["label"], strict=True)


SMALLER = replace(GLYPHS, convolutions=((8, 4), (8, 2)), steps=10)  # For its gradient to compile quickly.


@pytest.mark.parametrize(
    ("dataset", "net", "share"), [("digits", replace(DIGITS, steps=40), 0.8), ("glyphs", SMALLER, 1.0)]
)
def test_training_lowers_the_loss_and_writes_what_it_learnt(
    dataset: str, net: Classifier, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, images, labels = classifier.split(dataset)
    images, labels = images[:360], labels[:360]
    monkeypatch.setitem(classifier.CLASSIFIERS, dataset, net)
    monkeypatch.setattr(classifier, "split", lambda _: (data, images, labels))
    x, y = jnp.asarray(images), jnp.asarray(labels)

    def loss(weights: classifier.Weights) -> float:
        scores = classifier.logits(weights, classifier.features(net, weights, x))
        return float(optax.softmax_cross_entropy_with_integer_labels(scores, y).mean())

    path = tmp_path / "weights.safetensors"
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes its step count with floats.
        accuracy = classifier.main(dataset, path)
    stored = load_file(path)
    assert {array.dtype for array in stored.values()} == {np.dtype(net.stored)}
    written = {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
    start = classifier.init(net, jax.random.fold_in(jax.random.key(0), 2**31))
    assert loss(written) < share * loss(start)
    found = classifier.examine(net, written, x)[1]
    assert accuracy == pytest.approx(float((found == labels).mean()))


def test_a_dataset_without_a_classifier_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(InputError, match="dataset 'faces' has no classifier: those with are digits, glyphs"):
        classifier.main("faces")
