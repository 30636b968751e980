"""What all data sets' metrics share."""

import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models.data.pipeline import to_network
from shortcut_models.metrics import classifier, images
from shortcut_models.metrics.classifier import DIGITS
from shortcut_models.metrics.frechet import fit_gaussian, frechet_distance
from shortcut_models.metrics.images import ImageMetrics, pool

RNG = np.random.default_rng(0)


def some(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def test_pooling_takes_the_mean_of_each_square() -> None:
    pixels = RNG.standard_normal((2, 6, 6, 3)).astype(np.float32)
    found = pool(pixels, 2)
    assert found.shape == (2, 2, 2, 3)
    for i in range(2):
        for j in range(2):
            square = pixels[:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            np.testing.assert_allclose(found[:, i, j], square.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pool(pixels, 6), pixels)


def test_the_numbers_are_those_of_the_formulas() -> None:
    real, fake, labels = some(50), some(40), RNG.integers(0, 10, 40)
    found = ImageMetrics(DIGITS, real, side=4).measure(fake, labels)
    hidden, classes = zip(
        *(classifier.examine(DIGITS, classifier.load(DIGITS), jnp.asarray(to_network(a))) for a in (fake, real)),
        strict=True,
    )
    means = [
        to_network(a).astype(float).reshape(len(a), 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(a), 16)
        for a in (fake, real)
    ]
    distance = lambda pair: frechet_distance(*(fit_gaussian(np.asarray(a)) for a in pair))  # noqa: E731
    assert found == pytest.approx(
        {
            "frechet-pixels4x4-40": distance(means),
            "frechet-digitnet1-40": distance(hidden),
            "agreement-digitnet1-40": np.mean(np.asarray(classes[0]) == labels),
        },
        rel=1e-4,
    )


def test_images_are_examined_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, given = ImageMetrics(DIGITS, some(20), side=8), some(11)
    hidden, labels = metrics.examine(given)
    monkeypatch.setattr(images, "CHUNK", 4)
    again, same = metrics.examine(given)
    np.testing.assert_allclose(again, hidden, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(same, labels)
