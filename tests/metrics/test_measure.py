"""Feeding samples to metrics: the numbers are those of the formulas, however the samples are cut."""

import numpy as np
import pytest

from shortcut_models import InputError, catalogue
from shortcut_models.data.pixels import to_network
from shortcut_models.metrics.agreement import AGREEMENT_DIGITNET1
from shortcut_models.metrics.base import Metric, Reference
from shortcut_models.metrics.features.classifier import DIGITNET1, Classifier
from shortcut_models.metrics.features.pixels import Pixels, pool
from shortcut_models.metrics.gaussian import (
    FRECHET_DIGITNET1,
    FRECHET_PIXELS,
    Frechet,
    frechet,
)
from shortcut_models.metrics.measure import Measurement, check_metrics, chunk_size
from shortcut_models.metrics.points import ENERGY, SLICED_WASSERSTEIN, energy_distance, sliced_wasserstein
from shortcut_models.views import get_view

RNG = np.random.default_rng(0)
PIXELS4 = Frechet(name="frechet-pixels4x4", features=Pixels(side=4))
IMAGE_METRICS = (PIXELS4, FRECHET_DIGITNET1, AGREEMENT_DIGITNET1)


def some(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def measure(metrics: tuple[Metric, ...], samples: np.ndarray, labels: np.ndarray, size: int = 1000) -> Measurement:
    found = Measurement(metrics)
    for start in range(0, len(samples), size):
        found.add(samples[start : start + size], labels[start : start + size])
    return found


def references(measured: Measurement) -> dict[str, Reference]:
    return {m.name: Reference("some", measured.count, measured.sums(m)) for m in measured.metrics}


def test_every_name_of_the_catalogue_is_that_of_its_metric() -> None:
    for name in catalogue.METRICS:
        assert catalogue.find("metric", catalogue.METRICS, name).name == name


@pytest.mark.parametrize("size", [1000, 7])
def test_the_numbers_are_those_of_the_formulas(size: int) -> None:
    real, fake, labels = some(50), some(40), RNG.integers(0, 10, 40)
    given = references(measure(IMAGE_METRICS, real, np.zeros(50), size))
    found = measure(IMAGE_METRICS, fake, labels, size).values(given)
    means = [
        to_network(a).astype(float).reshape(len(a), 4, 2, 4, 2).mean(axis=(2, 4)).reshape(len(a), 16)
        for a in (fake, real)
    ]
    hidden = [DIGITNET1(a)["vector"] for a in (fake, real)]
    assert found == pytest.approx(
        {
            "frechet-pixels4x4-40": frechet(means[0], means[1]),
            "frechet-digitnet1-40": frechet(hidden[0], hidden[1]),
            "agreement-digitnet1-40": np.mean(DIGITNET1(fake)["predicted"] == labels),
        },
        rel=1e-4,
    )
    assert list(found) == [f"{metric.name}-40" for metric in IMAGE_METRICS]


def test_agreement_is_the_share_of_samples_that_agree() -> None:
    images = some(30)
    read = DIGITNET1(images)["predicted"]
    labels = read.copy()
    labels[:12] = (labels[:12] + 1) % 10  # Twelve of thirty are wrong: neither all nor any, in any chunk.
    labels[20:23] = (labels[20:23] + 5) % 10
    for size in (30, 10, 7):
        measured = measure((AGREEMENT_DIGITNET1,), images, labels, size)
        assert measured.values({AGREEMENT_DIGITNET1.name: Reference("", 0, {})}) == {"agreement-digitnet1-30": 0.5}


def test_features_in_full_are_kept_in_order() -> None:
    real, fake = (RNG.standard_normal((n, 2)).astype(np.float32) for n in (20, 15))
    metrics = (ENERGY, SLICED_WASSERSTEIN)
    given = references(measure(metrics, real, np.zeros(20), 6))
    measured = measure(metrics, fake, np.zeros(15), 4)
    np.testing.assert_array_equal(measured.sums(ENERGY)["points"], fake)
    assert measured.values(given) == pytest.approx(
        {"energy-15": energy_distance(fake, real), "sliced-wasserstein-15": sliced_wasserstein(fake, real)}, rel=1e-12
    )


def test_floats_are_rounded_as_on_disk_before_they_are_measured() -> None:
    images = some(20)
    near = to_network(images) + np.float32(0.4 / 127.5)
    near[0, 0, 0, 0], images[0, 0, 0, 0] = 1.3, 255  # Clipped.
    near[1, 0, 0, 0], images[1, 0, 0, 0] = -1.3, 0
    one, two = (measure((FRECHET_PIXELS,), a, np.zeros(20)).sums(FRECHET_PIXELS) for a in (images, near))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_of_a_model_that_diverged_get_no_number(bad: float) -> None:
    # As bytes they would be black or white pixels, and get one like any other.
    images = to_network(some(9))
    images[4, 2, 2] = bad
    for metric in IMAGE_METRICS:
        with pytest.raises(InputError, match="hold NaN or infinite numbers, as those of a model that diverged"):
            measure((metric,), images, np.zeros(9))
    with pytest.raises(InputError, match="hold NaN or infinite numbers"):
        get_view("images").to_samples(images)


def test_features_that_metrics_share_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = Classifier.__call__
    monkeypatch.setattr(Classifier, "__call__", lambda self, samples: calls.append(1) or plain(self, samples))
    measure((FRECHET_DIGITNET1, AGREEMENT_DIGITNET1), some(6), np.zeros(6), 3)
    assert len(calls) == 2


def test_pooling_takes_the_mean_of_each_square() -> None:
    pixels = RNG.standard_normal((2, 6, 6, 3)).astype(np.float32)
    found = pool(pixels, 2)
    assert found.shape == (2, 2, 2, 3)
    for i in range(2):
        for j in range(2):
            square = pixels[:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            np.testing.assert_allclose(found[:, i, j], square.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pool(pixels, 6), pixels)


def test_metrics_that_do_not_fit_are_refused() -> None:
    for metrics, shape, words in (
        ((), (8, 8, 1), "no metric is chosen"),
        ((FRECHET_PIXELS, FRECHET_PIXELS), (8, 8, 1), "metric 'frechet-pixels' is named twice"),
        ((FRECHET_PIXELS,), (2,), r"pixels measures images \(height, width, channels\), but the samples are 2"),
        ((PIXELS4,), (6, 8, 1), "pixels4x4 averages equal squares, but 4 does not divide 6x8"),
        ((FRECHET_DIGITNET1,), (32, 32, 3), "digitnet1 measures 8x8x1 images, but the samples are 32x32x3"),
        ((ENERGY,), (8, 8, 1), "the samples are 8x8x1: choose metrics of images"),
    ):
        with pytest.raises(InputError, match=words):
            check_metrics(metrics, shape)
    check_metrics((PIXELS4,), (8, 8, 1))


def test_chunks_are_whole_batches_of_sampling_and_small_for_large_images() -> None:
    assert [chunk_size(shape) for shape in ((2,), (8, 8, 1), (32, 32, 3), (64, 64, 3), (256, 256, 3))] == [
        2048,
        2048,
        2048,
        512,
        256,
    ]
