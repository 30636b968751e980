"""The glyphs' metrics, and that its images can be read."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from shortcut_models.data import Glyphs, class_names
from shortcut_models.evaluate import METRICS, evaluate
from shortcut_models.metrics.classifier import GLYPHS
from shortcut_models.metrics.glyphs import GlyphMetrics
from shortcut_models.model import Model
from shortcut_models.models import DiT
from shortcut_models.objectives import Shortcut
from shortcut_models.pictures import draw_budgets

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
    # The floor is that of the training split's images; the held-out ones get about the same.
    other = metrics.measure(Glyphs(held_out=True).stack(20_000 + np.arange(COUNT)), LABELS)
    for name, value in floor.items():
        assert other[name] == pytest.approx(value, rel=0.3)


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


def test_a_model_of_glyphs_is_measured_and_drawn(
    metrics: GlyphMetrics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(METRICS, "glyphs", lambda: metrics)
    network = DiT(image_size=32, channels=3, num_classes=62, patch_size=8, hidden_size=16, depth=1, num_heads=2)
    model = Model(network, network.init(jax.random.key(0)), Shortcut(), step=0, weights="ema")
    found = evaluate(model, "glyphs", [1], count=62)
    noise, real = found.report["steps"]["1"], found.report["real"]
    assert list(noise) == list(real)
    assert noise["frechet-glyphnet1-62"] > 2 * real["frechet-glyphnet1-62"]
    assert found.images[1].shape == (62, 32, 32, 3)
    draw_budgets(tmp_path / "samples.png", found.images, class_names("glyphs"))
    assert (tmp_path / "samples.png").exists()
