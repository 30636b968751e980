"""The classifiers whose features and labels measure images: other weights would be another metric."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from shortcut_models import InputError, catalogue
from shortcut_models.data.pixels import to_network
from shortcut_models.metrics.features import convnet
from shortcut_models.metrics.features.classifier import DIGITNET1, FASHIONNET1, GLYPHNET1, Classifier, held_out
from shortcut_models.metrics.references import read

ALL = pytest.mark.parametrize("net", [DIGITNET1, FASHIONNET1, GLYPHNET1], ids=["digits", "fashion", "glyphs"])
DIGESTS = {
    "digitnet1": "810a5b94aeaef2e1ab7d68f6166d822bcc2177054c577dcd80f561ddeab855e7",
    "fashionnet1": "b72f6c7a968f1e0efbd5856ccb7d52fa3a2f6c5e95ac56bcd17b5446091d9a65",
    "glyphnet1": "1eb01a0ac518b6e9b9d06a2ef26675293b5ec18b38b4ce115ae3efafddfd0c56",
}


@ALL
def test_the_weights_are_those_that_the_metrics_are_named_after(net: Classifier) -> None:
    # Numbers of different weights cannot be compared: whoever trains them again gives them a new version.
    assert hashlib.sha256(net.file.read_bytes()).hexdigest() == DIGESTS[net.version]
    assert net.file.stat().st_size < 300_000
    with safe_open(net.file, "numpy") as file:
        assert file.metadata()["version"] == net.version


@ALL
def test_features_are_for_images_of_one_shape(net: Classifier) -> None:
    found = net(np.zeros((2, *net.image_shape), np.uint8))
    assert found["vector"].shape == (2, 64)
    assert found["predicted"].shape == (2,)
    net.check(net.image_shape)
    with pytest.raises(InputError, match=f"{net.version} measures .* images, but the samples are 16x16x1"):
        net.check((16, 16, 1))
    with pytest.raises(InputError, match="the samples are 2: choose metrics made for them"):
        net.check((2,))


def test_bytes_and_floats_have_the_same_features() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    one, two = DIGITNET1(images), DIGITNET1(to_network(images))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_convolution_of_the_network_is_a_sum_over_its_window() -> None:
    # The first layer by hand at one inner pixel, carried through by a network that only passes it on.
    weights = {name: np.zeros(a.shape, np.float32) for name, a in load_file(DIGITNET1.file).items()}
    image = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    kernel = np.random.default_rng(1).uniform(0, 1, (3, 3)).astype(np.float32)
    weights["conv1.kernel"][:, :, 0, 0] = kernel
    weights["conv1.bias"][0] = 0.25
    weights["conv2.kernel"][1, 1, 0, 0] = 1
    # Stride 2 over 8 pixels pads behind only, so that output (i, j) is centred on pixel (2i + 1, 2j + 1).
    weights["conv3.kernel"][1, 1, 0, 0] = 1
    weights["dense.kernel"][(2 * 4 + 1) * 48, 5] = 2
    weights["logits.kernel"][5, 7] = 1
    given = {name: convnet.jnp.asarray(a) for name, a in weights.items()}
    found, predicted = convnet.examine(given, convnet.jnp.asarray(image), DIGITNET1.strides)
    expected = 2 * (np.sum(image[0, 4:7, 2:5, 0] * kernel) + 0.25)
    np.testing.assert_allclose(found[0, 5], expected, rtol=1e-5)
    assert float(abs(found).sum()) == pytest.approx(expected, rel=1e-5)
    assert predicted.tolist() == [7]


def test_a_random_fifth_of_the_digits_is_held_out_and_stays_so() -> None:
    kept = held_out(1797)
    assert kept.sum() == 360
    assert np.flatnonzero(kept)[:8].tolist() == [0, 3, 4, 15, 18, 20, 29, 31]
    np.testing.assert_array_equal(DIGITNET1.unseen(1797), kept)
    # Of other data nothing is known to have been seen.
    assert DIGITNET1.unseen(1796) is None
    assert GLYPHNET1.unseen(1797) is None


def test_the_digits_are_read_as_well_as_the_file_says() -> None:
    source = catalogue.find("data set", catalogue.DATA, "digits")().open()
    images, labels = read(source, np.flatnonzero(held_out(1797)))
    accuracy = float((DIGITNET1(images)["predicted"] == labels).mean())
    with safe_open(DIGITNET1.file, "numpy") as file:
        assert file.metadata()["held_out_accuracy"] == f"{accuracy:.4f}"
    assert accuracy > 0.98


def test_all_glyphs_can_be_read_as_well_as_the_file_says() -> None:
    source = catalogue.find("data set", catalogue.DATA, "glyphs")().open("test")
    images, labels = read(source, np.arange(1240))
    right = GLYPHNET1(images)["predicted"] == labels
    with safe_open(GLYPHNET1.file, "numpy") as file:
        said = float(file.metadata()["held_out_accuracy"])
    assert said > 0.95
    assert right.mean() == pytest.approx(said, abs=0.01)
    # Twenty of each: the worst are those that look alike in some fonts, such as I and l.
    assert right.reshape(20, 62).mean(axis=0).min() >= 0.6


FASHION = catalogue.find("data set", catalogue.DATA, "fashion-mnist")()


@pytest.mark.skipif(not Path(FASHION.path).is_dir(), reason="Fashion-MNIST is a package of Debian's")
def test_clothes_are_read_as_well_as_the_file_says() -> None:
    source = FASHION.open("test")
    images, labels = read(source, np.arange(len(source)))
    accuracy = float((FASHIONNET1(images)["predicted"] == labels).mean())
    with safe_open(FASHIONNET1.file, "numpy") as file:
        assert float(file.metadata()["held_out_accuracy"]) == pytest.approx(accuracy, abs=2e-4)


def test_the_accuracy_on_clothes_is_published_as_it_was_measured() -> None:
    found = json.loads((Path(__file__).parents[2] / "benchmarks/results/classifier-fashion.json").read_text())
    with safe_open(FASHIONNET1.file, "numpy") as file:
        assert file.metadata() == {name: found[name] for name in ("version", "held_out_accuracy")}
    assert found["held_out_images"] == 10_000
    assert float(found["held_out_accuracy"]) > 0.88
