"""Arrays of any shape are written as they are, drawn in grey, and measured: no data set has to name a view."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, catalogue
from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.base import Data
from shortcut_models.data.folder import Folder
from shortcut_models.evaluate import evaluate
from shortcut_models.figures import draw_figures
from shortcut_models.metrics.base import Arrays, Features, Reference, ScalarMetric, Sums
from shortcut_models.model import Model
from shortcut_models.networks import Network
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.views import arrays, get_view, images

LABELS = np.arange(4, dtype=np.int32) % 2
SHAPES = [(1,), (3,), (5, 7), (2, 3, 4, 5), (4, 4, 2), (40, 2)]


@dataclass(frozen=True, kw_only=True)
class Anything(Data):
    """Normal numbers of some shape."""

    shape: tuple[int, ...] = (5, 7)
    num_classes = 2

    def open(self, split: str = "train") -> ArraySource:
        self.check_split(split)
        x = np.random.default_rng(0).standard_normal((12, *self.shape)).astype(np.float32)
        return ArraySource({"x": x, "label": np.arange(12, dtype=np.int32) % 2})

    def identity(self) -> str:
        return f"anything-{self.shape}"


@dataclass(frozen=True)
class Still(Network):
    """No velocity anywhere: samples are their noise."""

    shape: tuple[int, ...] = (5, 7)
    num_classes: int = 2

    def init(self, key: Any) -> dict[str, Any]:
        del key
        return {}

    def apply(self, params: Any, x: Any, t: Any, d: Any, label: Any) -> Any:
        del params, t, d, label
        return 0 * x


@dataclass(frozen=True, kw_only=True)
class Numbers(Features):
    """All numbers, as they are."""

    takes = "raw"
    name = "numbers"

    def __call__(self, samples: np.ndarray) -> Arrays:
        return {"mean": samples.reshape(len(samples), -1).mean(axis=1, keepdims=True)}

    def check(self, shape: tuple[int, ...]) -> None:
        """All shapes have a mean."""


@dataclass(frozen=True, kw_only=True)
class Mean(ScalarMetric):
    """Difference of the means."""

    features: Features = Numbers()
    rows: tuple[str, ...] = ("mean",)

    def value(self, sums: Sums, reference: Reference) -> float:
        return float(abs(sums["mean"].mean() - reference.sums["mean"].mean()))


@pytest.mark.parametrize("shape", SHAPES)
def test_x_of_any_shape_is_sampled_drawn_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    find = catalogue.find
    monkeypatch.setattr(
        catalogue, "find", lambda kind, names, name: Mean(name=name) if name == "mean" else find(kind, names, name)
    )
    data = Anything(shape=shape)
    model = Model(Still(shape=shape), {}, Shortcut(), data, step=7, weights="ema")
    view = get_view(data.view)
    view.check_shape(shape)
    samples = view.to_samples(model.decode(model.sample(LABELS, 2)))
    for end in ("png", "npz"):
        view.write(tmp_path / f"a.{end}", samples, LABELS)
    with np.load(tmp_path / "a.npz") as written:
        np.testing.assert_array_equal(written[view.NOUN], samples)
    found = evaluate(model, data, [1, 2], 8, metrics=["mean"])
    assert found.report["steps"]["1"]["mean-8"] > 0
    view.draw_budgets(tmp_path / "b.png", found.samples, None, view.examples(data))
    view.draw_methods(tmp_path / "c.png", {"still": found.samples})
    assert len(draw_figures(model, tmp_path / "figures", count=2)) >= 4


def test_the_view_follows_from_the_shape_but_files_hold_images(tmp_path: Path) -> None:
    found = [Anything(shape=shape).view for shape in [(), *SHAPES]]
    assert found == ["arrays", "points", "points", "arrays", "arrays", "images", "arrays"]
    assert Folder(path=str(tmp_path / "gone")).view == "images"  # Without its shape, which would have to be read.


@pytest.mark.parametrize(("view", "shape"), [("images", (3,)), ("points", (5, 7)), ("points", (0,))])
def test_a_view_that_cannot_show_the_samples_is_refused_before_any_is_drawn(view: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"are no (images|points) \(.*let `view` of the data set be"):
        get_view(view).check_shape(shape)


class Sheets:
    """Stands for the pictures of images, and keeps what they are to show."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: Any = None
        self.foot = ""
        monkeypatch.setattr(images, "draw_budgets", self)

    def __call__(self, path: Path, samples: Any, names: Any, examples: Any, foot: str) -> None:
        del path, names, examples
        self.shown, self.foot = samples, foot


def test_grey_says_how_large_a_number_is(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Sheets(monkeypatch)
    ramp = np.linspace(-1, 1, 1001, dtype=np.float32)
    wild = np.array([[np.nan, np.inf], [-np.inf, 0.0]], np.float32)
    arrays.draw_budgets(Path("no.png"), {1: np.tile(ramp[:1000].reshape(1, 25, 40), (2, 1, 1)), 2: wild[None]}, None)
    first, second = drawn.shown[1], drawn.shown[2]
    assert first.shape == (2, 25, 40, 1)
    assert first[0, 0, 0, 0] == 0
    assert first[0, -1, -1, 0] == 255
    assert (np.diff(first[0].ravel().astype(int)) >= 0).all()
    assert second[0, :, :, 0].tolist() == [[0, 255], [0, 128]]
    assert drawn.foot == "black -0.99, white 0.988"


def test_a_long_array_is_drawn_as_a_square(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Sheets(monkeypatch)
    arrays.draw_budgets(Path("no.png"), {1: np.arange(1000, dtype=np.float32).reshape(1, 1000)}, None, None, "foot")
    assert drawn.shown[1].shape == (1, 32, 32, 1)
    assert drawn.shown[1].ravel()[:1000].argmax() > 990
    assert not drawn.shown[1].ravel()[1000:].any()
    assert drawn.foot.startswith("foot; black ")


@pytest.mark.parametrize("fill", [np.nan, 0.0, 1e30])
def test_numbers_that_are_all_alike_are_drawn_too(tmp_path: Path, fill: float) -> None:
    arrays.write(tmp_path / "a.png", np.full((4, 5, 7), fill, np.float32), LABELS)
    assert (tmp_path / "a.png").exists()


def test_an_ending_that_we_do_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in .png, for a picture of the numbers in grey, or in .npz"):
        arrays.check_out(tmp_path / "a.jpg")
