"""Real samples: the numbers that were published, and which samples they come from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, catalogue
from shortcut_models.data.base import Data
from shortcut_models.metrics import references as module
from shortcut_models.metrics.agreement import AGREEMENT_DIGITNET1
from shortcut_models.metrics.base import Metric, ScalarMetric
from shortcut_models.metrics.gaussian import FRECHET_PIXELS
from shortcut_models.metrics.measure import Measurement
from shortcut_models.metrics.points import ENERGY, energy_distance
from shortcut_models.metrics.references import read, real_values, references

PUBLISHED = json.loads((Path(__file__).parents[1] / "golden" / "report_numbers.json").read_text())
"""What version 0.1 gave for the samples below, before metrics were streamed."""


def noisy(name: str) -> tuple[Data, np.ndarray, np.ndarray]:
    """A data set, some of its images with noise, and the labels that they were asked for."""
    data = catalogue.find("data set", catalogue.DATA, name)()
    source = data.open()
    if name == "digits":
        rng = np.random.default_rng(7)
        images, found = read(source, rng.integers(0, 1797, 1000))
        labels = np.arange(1000) % 10
        labels = np.where(labels < 7, found, labels)
    else:
        rng = np.random.default_rng(8)
        images, _ = read(source, np.arange(496) * 37)
        labels = np.arange(496) % 62
    noise = rng.integers(-40, 41, images.shape)
    return data, np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8), labels


def metrics_of(data: Data) -> list[Metric]:
    return [catalogue.find("metric", catalogue.METRICS, name) for name in data.metrics]


@pytest.mark.parametrize("name", ["digits", "glyphs"])
def test_published_numbers_stay_as_they_are(name: str) -> None:
    data, images, labels = noisy(name)
    measurement = Measurement(metrics_of(data))
    measurement.add(images, labels)
    found = measurement.values(references(data, metrics_of(data)))
    real = real_values(data, metrics_of(data), len(images)).values
    assert found == pytest.approx(PUBLISHED[name]["samples"], rel=1e-5)
    assert real == pytest.approx(PUBLISHED[name]["real"], rel=1e-5)
    assert list(found) == list(real) == list(PUBLISHED[name]["samples"])


@dataclass(frozen=True, kw_only=True)
class Toy(Data):
    """Grey images (8, 8, 1); each split has as many as it is told."""

    train: int
    test: int = 0
    name: str = "toy"

    def open(self, split: str = "train") -> "Toy.Source":
        return Toy.Source(self.train if split == "train" else self.test, 0 if split == "train" else 1)

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "test") if self.test else ("train",)

    @property
    def shape(self) -> tuple[int, ...]:
        return (8, 8, 1)

    @property
    def num_classes(self) -> int:
        return 10

    def identity(self) -> str:
        return f"{self.name}-{self.train}-{self.test}"

    class Source:
        def __init__(self, count: int, split: int) -> None:
            self.count, self.split = count, split

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> dict[str, Any]:
            assert 0 <= index < self.count
            image = np.random.default_rng([self.split, index]).integers(0, 256, (8, 8, 1), dtype=np.uint8)
            return {"image": image, "label": index % 10}


@dataclass(frozen=True, kw_only=True)
class Seen(ScalarMetric):
    """Which samples it was given: the sum over their first pixels."""

    rows: tuple[str, ...] = ("vector",)

    def value(self, sums: Any, reference: Any) -> float:  # noqa: ARG002
        return float(sums["vector"][:, 0].sum())


FIRST = Seen(name="first", features=FRECHET_PIXELS.features)


def first_pixels(data: Data, split: str, indices: Any) -> float:
    return float((read(data.open(split), indices)[0][:, 0, 0, 0].astype(np.float32) / 127.5 - 1).sum())


def test_held_out_samples_are_the_real_ones_where_there_are_any() -> None:
    data = Toy(train=30, test=20)
    real = real_values(data, [FIRST], 20)
    assert real.what == "20 of the 20 of the test split"
    assert real.values["first-20"] == pytest.approx(first_pixels(data, "test", range(20)), rel=1e-4)
    # Fewer of them are some, none twice; more are drawn with replacement.
    values = {first_pixels(data, "test", [i for i in range(20) if i != left]) for left in range(20)}
    assert min(abs(real_values(data, [FIRST], 19).values["first-19"] - value) for value in values) < 1e-4
    assert real_values(data, [FIRST], 25).what == "25 drawn with replacement from the 20 of the test split"
    assert references(data, [FIRST])["first"].count == 30


def test_without_held_out_samples_they_are_drawn_from_the_training_split() -> None:
    data = Toy(train=30)
    drawn = np.random.default_rng(0).integers(0, 30, 12)
    real = real_values(data, [FIRST], 12)
    assert real.what == "12 drawn with replacement from the train split"
    assert real.values["first-12"] == pytest.approx(first_pixels(data, "train", drawn), rel=1e-4)


def test_agreement_of_real_samples_is_that_of_those_which_the_classifier_never_saw() -> None:
    # Only a data set of the size of the one that trained it is taken for that one; 20 % of it is unseen.
    classifier = AGREEMENT_DIGITNET1.features
    trained = Toy(train=1797, name="as large as the digits")
    unseen = np.flatnonzero(np.random.default_rng(0).permutation(1797) % 5 == 0)
    images, labels = read(trained.open(), unseen)
    expected = float((classifier(images)["predicted"] == labels).mean())
    assert real_values(trained, [AGREEMENT_DIGITNET1], 50).values == {"agreement-digitnet1-50": expected}
    other = Toy(train=1796)
    drawn = np.random.default_rng(0).integers(0, 1796, 50)
    images, labels = read(other.open(), drawn)
    expected = float((classifier(images)["predicted"] == labels).mean())
    assert real_values(other, [AGREEMENT_DIGITNET1], 50).values == {"agreement-digitnet1-50": expected}


def test_endless_data_are_measured_against_the_start_of_the_held_out_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDLESS", 100)
    monkeypatch.setattr(module, "DRAWN", 15)
    data = Toy(train=200, test=120)
    found = references(data, [FIRST])["first"]
    assert (found.count, found.what) == (15, "15 examples of the test split")
    start = read(data.open("test"), range(15))[0][:, 0, 0, 0]
    np.testing.assert_array_equal(found.sums["vector"][:, 0], start / np.float32(127.5) - 1)
    rng = np.random.default_rng(0)
    sets = [rng.integers(0, 20, 23) * 10 + np.arange(23) % 10 for _ in range(4)]
    real = real_values(data, [FIRST], 23)
    assert real.what == "the mean of 4 sets of 23 examples of the train split"
    expected = np.mean([first_pixels(data, "train", indices) for indices in sets])
    assert real.values["first-23"] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_metric_that_keeps_all_features_takes_some_of_a_large_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWN", 15)
    data = Toy(train=40, test=20, name="large")
    found = references(data, [FIRST, FRECHET_PIXELS])
    assert {name: reference.count for name, reference in found.items()} == {"first": 15, "frechet-pixels": 40}


def test_references_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Toy(train=30, name="once")
    first = references(data, [FRECHET_PIXELS])
    real = real_values(data, [FRECHET_PIXELS], 10)
    monkeypatch.setattr(module, "measure_source", None)
    assert references(data, [FRECHET_PIXELS])["frechet-pixels"] is first["frechet-pixels"]
    assert real_values(data, [FRECHET_PIXELS], 10) == real


def test_points_are_measured() -> None:
    data = catalogue.find("data set", catalogue.DATA, "points")()
    real = real_values(data, [ENERGY], 64).values["energy-64"]
    some, others = (read(data.open(split), np.arange(256))[0] for split in data.splits)
    assert 0 < energy_distance(some, others) < real < 0.1
    assert energy_distance(some + np.float32(0.5), others) > real


def test_latents_are_no_images() -> None:
    class Latents:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"mean": np.zeros((2, 2, 4), np.float32), "deviation": np.zeros((2, 2, 4), np.float32), "label": 0}

    with pytest.raises(InputError, match="the data set holds latents, not images"):
        read(Latents(), [0])
