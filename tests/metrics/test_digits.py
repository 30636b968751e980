"""The digits' metrics and the classifier behind them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from shortcut_models.data import Digits
from shortcut_models.data.pipeline import to_network
from shortcut_models.metrics import classifier
from shortcut_models.metrics.classifier import DIGITS
from shortcut_models.metrics.digits import DigitMetrics


@pytest.fixture(scope="module")
def metrics() -> DigitMetrics:
    return DigitMetrics()


def test_the_weights_are_as_accurate_as_they_say() -> None:
    source = Digits()
    kept = classifier.held_out(len(source))
    found = classifier.examine(DIGITS, classifier.load(DIGITS), jnp.asarray(to_network(source.images[kept])))[1]
    accuracy = float((found == source.labels[kept]).mean())
    with safe_open(DIGITS.file, "numpy") as file:
        assert file.metadata()["held_out_accuracy"] == f"{accuracy:.4f}"
    assert accuracy > 0.98


def test_training_the_classifier_again_gives_the_same_and_learns() -> None:
    source = Digits()
    images = to_network(source.images)
    with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers.
        one, two = (
            classifier.train(DIGITS, classifier.shifted_batches(images, source.labels), steps=40) for _ in range(2)
        )
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert float((classifier.examine(DIGITS, one, jnp.asarray(images))[1] == source.labels).mean()) > 0.7


def test_the_real_digits_measure_as_real(metrics: DigitMetrics) -> None:
    source = Digits()
    found = metrics.measure(source.images, source.labels)
    assert found["frechet-pixels-1797"] == pytest.approx(0, abs=1e-6)
    assert found["frechet-digitnet1-1797"] == pytest.approx(0, abs=1e-3)
    assert found["agreement-digitnet1-1797"] > 0.99
    floor = metrics.floor(1000)
    assert 0.05 < floor["frechet-pixels-1000"] < 0.25  # 0.11 to 0.15 for draws with replacement


def test_worse_images_measure_worse(metrics: DigitMetrics) -> None:
    source = Digits()
    rng = np.random.default_rng(0)
    images, labels = source.images[:500], source.labels[:500]
    noisy = np.clip(images + 60 * rng.standard_normal(images.shape), 0, 255).astype(np.uint8)
    good, bad = metrics.measure(images, labels), metrics.measure(noisy, labels)
    assert bad["frechet-pixels-500"] > good["frechet-pixels-500"] + 1
    assert bad["frechet-digitnet1-500"] > good["frechet-digitnet1-500"]
    wrong = metrics.measure(images, (labels + 1) % 10)
    assert wrong["agreement-digitnet1-500"] < 0.05
