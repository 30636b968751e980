"""The training of the classifiers that measure images."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from benchmarks import classifier
from benchmarks.classifier import RECIPES, Recipe
from shortcut_models import InputError, catalogue
from shortcut_models.data.idx import FashionMnist
from shortcut_models.data.pixels import to_network
from shortcut_models.metrics.features import convnet
from shortcut_models.metrics.references import read
from shortcut_models.presets import get_preset


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_weights_of_the_package_fill_the_network(recipe: Recipe) -> None:
    fresh = jax.eval_shape(lambda key: classifier.init(recipe.net, key), jax.random.key(0))
    stored = load_file(recipe.net.file)
    assert {name: a.shape for name, a in stored.items()} == {name: a.shape for name, a in fresh.items()}
    assert {array.dtype for array in stored.values()} == {np.dtype(recipe.stored)}


def test_a_drawn_digit_is_one_of_those_given_shifted_by_at_most_a_pixel() -> None:
    # Images with one bright pixel in the middle: it moves to one of nine places, or the label would be wrong.
    images = np.full((4, 8, 8, 1), -1, np.float32)
    images[:, 4, 4, 0] = np.arange(4) / 4
    x, y = next(classifier.shifted_batches(images, np.arange(4)))
    assert x.shape == (classifier.BATCH, 8, 8, 1)
    _, rows, columns, _ = np.nonzero(np.asarray(x) > -1)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}
    np.testing.assert_array_equal(x.max(axis=(1, 2, 3)), y / 4)


def test_the_glyphs_to_test_on_are_none_to_train_on() -> None:
    data, images, labels = classifier.split("glyphs")
    assert np.bincount(labels).tolist() == [100] * 62
    held_out = catalogue.find("data set", catalogue.DATA, "glyphs")().open("test")
    np.testing.assert_array_equal(images[70], to_network(read(held_out, [70])[0])[0])
    for x, y in islice(data, 2):
        assert x.shape == (classifier.BATCH, 32, 32, 3)
        for image, label in zip(x, y, strict=True):
            assert not (image == images[labels == label]).all(axis=(1, 2, 3)).any()


def test_clothes_to_train_on_are_those_of_the_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Even levels are for training, odd ones for testing; the label is told by the level.
    for split, first, count in (("train", 0, 10), ("t10k", 1, 4)):
        images = np.empty((count, 28, 28), np.uint8)
        images[:] = (first + 2 * np.arange(count))[:, None, None]
        for kind, array in (("images-idx3", images), ("labels-idx1", images[:, 0, 0] // 2)):
            header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (tmp_path / f"{split}-{kind}-ubyte").write_bytes(header + array.tobytes())
    preset = get_preset("fashion")
    monkeypatch.setattr(classifier, "get_preset", lambda _: replace(preset, data=FashionMnist(path=str(tmp_path))))
    data, images, labels = classifier.split("fashion")
    np.testing.assert_array_equal(images[:, 14, 14, 0], np.array([1, 3, 5, 7], np.float32) / 127.5 - 1)
    assert labels.tolist() == [0, 1, 2, 3]
    x, y = next(data)
    np.testing.assert_array_equal(x[:, 14, 14, 0], 2 * np.asarray(y, np.float32) / 127.5 - 1)
    assert set(y.tolist()) == set(range(10))


SMALLER = replace(RECIPES["glyphs"].net, convolutions=((8, 4), (8, 2)))  # For its gradient to compile quickly.


@pytest.mark.parametrize(
    ("name", "recipe", "share"),
    [
        ("digits", replace(RECIPES["digits"], steps=40), 0.8),
        ("glyphs", replace(RECIPES["glyphs"], net=SMALLER, steps=10), 1.0),
    ],
)
def test_training_lowers_the_loss_and_writes_what_it_learnt(
    name: str, recipe: Recipe, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, images, labels = classifier.split(name)
    images, labels = images[:360], labels[:360]
    monkeypatch.setitem(RECIPES, name, recipe)
    monkeypatch.setattr(classifier, "split", lambda _: (data, images, labels))
    x, y, strides = jnp.asarray(images), jnp.asarray(labels), recipe.net.strides

    def loss(weights: convnet.Weights) -> float:
        scores = convnet.logits(weights, convnet.hidden_features(weights, x, strides))
        return float(optax.softmax_cross_entropy_with_integer_labels(scores, y).mean())

    path = tmp_path / "weights.safetensors"
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes its step count with floats.
        accuracy = classifier.main(name, path)
    stored = load_file(path)
    assert {array.dtype for array in stored.values()} == {np.dtype(recipe.stored)}
    written = {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
    start = classifier.init(recipe.net, jax.random.fold_in(jax.random.key(0), 2**31))
    assert loss(written) < share * loss(start)
    found = convnet.examine(written, x, strides)[1]
    assert accuracy == pytest.approx(float((found == labels).mean()))
    about = json.loads(path.with_suffix(".json").read_text())
    assert (about["held_out_accuracy"], about["held_out_images"]) == (f"{accuracy:.4f}", len(labels))
    assert about["command"] == f"make classifier DATASET={name}"


def test_training_again_gives_the_same() -> None:
    data = catalogue.find("data set", catalogue.DATA, "digits")().open()
    images, labels = read(data, np.arange(300))
    recipe = replace(RECIPES["digits"], steps=5)
    with jax.numpy_dtype_promotion("standard"):
        one, two = (classifier.train(recipe, classifier.shifted_batches(to_network(images), labels)) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_data_set_without_a_classifier_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(InputError, match="data set 'faces' has no classifier: those with are digits, glyphs, fashion"):
        classifier.main("faces")
