"""The glyphs' metrics, and that its images can be read."""

import numpy as np
import pytest
from safetensors import safe_open

from shortcut_models.data import Glyphs
from shortcut_models.evaluate import METRICS, evaluate
from shortcut_models.metrics.classifier import GLYPHS
from shortcut_models.metrics.glyphs import GlyphMetrics
from shortcut_models.model import Model

COUNT = 496  # Eight of each class.
LABELS = np.arange(COUNT) % 62


@pytest.fixture(scope="module")
def metrics() -> GlyphMetrics:
    return GlyphMetrics()


@pytest.fixture(scope="module")
def floor(metrics: GlyphMetrics) -> dict[str, float]:
    return metrics.floor(COUNT)


def test_all_classes_can_be_read_as_well_as_the_file_says(metrics: GlyphMetrics) -> None:
    held_out = Glyphs(held_out=True).stack(np.arange(1240))
    right = metrics.examine(held_out)[1] == np.arange(1240) % 62
    with safe_open(GLYPHS.file, "numpy") as file:
        said = float(file.metadata()["held_out_accuracy"])
    assert said > 0.95
    assert right.mean() == pytest.approx(said, abs=0.01)
    # Twenty of each: the worst are those that look alike in some fonts, such as I and l.
    assert right.reshape(20, 62).mean(axis=0).min() >= 0.6


def test_real_images_measure_as_real(metrics: GlyphMetrics, floor: dict[str, float]) -> None:
    assert list(floor) == [f"frechet-pixels8x8-{COUNT}", f"frechet-glyphnet1-{COUNT}", f"agreement-glyphnet1-{COUNT}"]
    assert floor == metrics.floor(COUNT)
    assert floor[f"agreement-glyphnet1-{COUNT}"] > 0.95
    # A set of other held-out images gets about the same.
    other = metrics.measure(Glyphs(held_out=True).stack(62 * 400 + np.arange(COUNT)), LABELS)
    for name, value in floor.items():
        assert value / 3 < other[name] < 3 * value


def test_worse_images_measure_worse(metrics: GlyphMetrics, floor: dict[str, float]) -> None:
    images = Glyphs().stack(np.arange(COUNT))
    noisy = np.clip(images + 60 * np.random.default_rng(0).standard_normal(images.shape), 0, 255).astype(np.uint8)
    grey = images.mean(axis=-1, keepdims=True).repeat(3, axis=-1).astype(np.uint8)
    pixels, features, agreement = floor
    for worse in (noisy, grey):
        found = metrics.measure(worse, LABELS)
        assert found[pixels] > 1.5 * floor[pixels]
        assert found[features] > 1.5 * floor[features]
    assert metrics.measure(images, (LABELS + 1) % 62)[agreement] < 0.05


class Noise(Model):
    """A model that has learnt nothing."""

    num_classes = 62

    def __init__(self) -> None: ...

    def sample(self, labels: np.ndarray, *_: object) -> np.ndarray:
        return np.random.default_rng(0).uniform(-1, 1, (len(labels), 32, 32, 3))


def test_a_model_of_glyphs_is_measured(
    metrics: GlyphMetrics, floor: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "glyphs", lambda: metrics)
    found = evaluate(Noise(), "glyphs", [1], count=COUNT)
    assert found.report["real"] == floor
    noise = found.report["steps"]["1"]
    assert list(noise) == list(floor)
    assert noise[f"frechet-glyphnet1-{COUNT}"] > 2 * floor[f"frechet-glyphnet1-{COUNT}"]
    assert found.images[1].shape == (62, 32, 32, 3)
