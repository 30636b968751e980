"""What is in the pictures of samples and examples, by networks whose samples are known."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import IMAGES, POINTS, Asked, Few, Rows, given_of

from shortcut_models import InputError, catalogue, cli
from shortcut_models.codecs.latents import Latents
from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.figures import check, draw_figures, draw_interpolation, find, left_out
from shortcut_models.figures.base import Given
from shortcut_models.figures.budgets import FIGURE as BUDGETS
from shortcut_models.figures.classes import Classes
from shortcut_models.figures.curves import FIGURE as CURVES
from shortcut_models.figures.curves import groups, read_metrics
from shortcut_models.figures.interpolation import FIGURE as INTERPOLATION
from shortcut_models.figures.nearest import Nearest
from shortcut_models.figures.reconstruction import FIGURE as RECONSTRUCTION
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.views import images, points
from shortcut_models.views.images import to_samples

NOWHERE = Path("not-written.png")


def by_label(at: Asked) -> jax.Array:
    """A velocity that moves every sample by a quarter of its label."""
    return 0 * at.x + at.label / 4


def test_an_interpolation_goes_from_noise_to_noise_at_unit_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Rows(monkeypatch, images)
    given = given_of(by_label, IMAGES, count=4, steps=2, seed=3)
    INTERPOLATION.draw(given, NOWHERE)
    a, b = (given.model.noise(3, first, 8)[::2] for first in (0, 1))
    shift = (np.array([0, 1, 2, 0]) / 4).reshape(4, 1, 1, 1)
    row = np.stack([line.blocks[0] for line in drawn.rows])
    assert row.shape == (4, 11, 4, 4, 1)
    for column, (x, y) in {0: (1, 0), 5: (np.sqrt(0.5), np.sqrt(0.5)), 10: (0, 1)}.items():
        np.testing.assert_allclose(row[:, column], to_samples(x * a + y * b + shift), atol=1)
    assert [line.name for line in drawn.rows] == ["class 0", "class 1", "class 2", "class 0"]
    assert "2 steps" in drawn.titles[0]
    assert drawn.foot == "step 7, ema weights, seed 3"
    replace(INTERPOLATION, unlabelled=True).draw(given, NOWHERE)
    first = np.stack([line.blocks[0][0] for line in drawn.rows[-4:]])
    np.testing.assert_allclose(first, to_samples(a + 3 / 4), atol=1)


@dataclass(frozen=True, kw_only=True)
class Moments(Few):
    """Latents of mean 0 and deviation 1, so that what is encoded is the encoder's noise."""

    @property
    def codec(self) -> Latents:
        return Latents(identity="", scale=1.0)

    def open(self, split: str = "train") -> ArraySource:
        self.check_split(split)
        moments = np.ones((self.count, *self.shape), np.float32)
        return ArraySource({"mean": 0 * moments, "deviation": moments, "label": np.arange(self.count) % 3})


def test_an_example_is_not_paired_with_its_own_encoders_noise() -> None:
    given = given_of(by_label, Moments(shape=(4, 4, 4)))
    encoded, noise = given.examples("train", np.arange(4))[0], given.noise(4)
    assert encoded.std() == pytest.approx(1, abs=0.2)
    assert min(np.abs(one - other).max() for one in encoded for other in noise) > 0.1


def test_fresh_noise_is_the_same_all_along_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jumps of a consistency model go to the end (here: to 0) and are noised back: nothing of the start is left."""
    drawn = Rows(monkeypatch, images)
    given = given_of(lambda at: jnp.where(at.t == 0, -at.x, 0 * at.x), IMAGES, Consistency(), count=2, steps=2)
    INTERPOLATION.draw(given, NOWHERE)
    first, second = (row.blocks[0] for row in drawn.rows)
    assert (first == first[:1]).all()
    assert (first[0] != second[0]).any()


def test_every_sample_of_a_class_stands_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Rows(monkeypatch, images)
    given = given_of(by_label, IMAGES, count=4)
    Classes(how="").draw(given, NOWHERE)
    noise = given.noise(12).reshape(3, 4, 4, 4, 1)
    for number, row in enumerate(drawn.rows):
        np.testing.assert_allclose(row.blocks[0], to_samples(noise[number] + number / 4), atol=1)
    assert drawn.titles == ["4 steps"]
    Classes(how="", most=2).draw(given, NOWHERE)
    assert [row.name for row in drawn.rows] == ["class 0", "class 2"]
    np.testing.assert_allclose(drawn.rows[1].blocks[0], to_samples(noise[1] + 2 / 4), atol=1)
    assert drawn.titles == ["2 of 3 classes, 4 steps"]


def test_a_model_without_labels_has_a_sheet_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Rows(monkeypatch, images)
    Classes(how="").draw(given_of(by_label, IMAGES, Shortcut(label_dropout=1.0), count=2), NOWHERE)
    assert [row.name for row in drawn.rows] == [""] * 8


def test_classes_of_points_stand_beside_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Rows(monkeypatch, points)
    Classes(how="").draw(given_of(by_label, count=3), NOWHERE)
    assert drawn.titles == ["4 steps", "data"]
    x = POINTS.open("test").arrays["x"]
    for number, row in enumerate(drawn.rows):
        np.testing.assert_array_equal(row.blocks[1], x[number::3][:3])


@pytest.mark.parametrize("data", [IMAGES, POINTS], ids=["images", "points"])
def test_a_reconstruction_jumps_from_each_level_with_the_label_of_each_example(
    monkeypatch: pytest.MonkeyPatch, data: Few
) -> None:
    view = images if data == IMAGES else points
    drawn = Rows(monkeypatch, view)
    given = given_of(lambda at: by_label(at) + at.t + 2 * at.d, data, count=5, seed=1)
    RECONSTRUCTION.draw(given, NOWHERE)
    chosen = given.indices("test", 5)
    x1, labels = (data.open("test").arrays[name][chosen] for name in ("x", "label"))
    assert [row.name for row in drawn.rows] == [
        *(f"t = {t}" for t in ("0", "1/2", "3/4", "7/8", "15/16", "31/32")),
        "data",
    ]
    for row, t in zip(drawn.rows, [0, 1 / 2, 3 / 4, 7 / 8, 15 / 16, 31 / 32], strict=False):
        x_t = (1 - t) * given.noise(5) + t * x1
        shift = (labels / 4 + t + 2 * (1 - t)).reshape(5, *(1,) * (x1.ndim - 1))
        np.testing.assert_allclose(row.blocks[0], view.to_samples(x_t), atol=1 if data == IMAGES else 1e-6)
        end = view.to_samples((x_t + (1 - t) * shift).astype(np.float32))
        np.testing.assert_allclose(row.blocks[1], end, atol=1 if data == IMAGES else 1e-6)
    for block in drawn.rows[-1].blocks:
        np.testing.assert_array_equal(block, view.to_samples(x1))
    assert drawn.foot.startswith("test split, ")


def test_budgets_are_finished_samples_of_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(images, "draw_budgets", lambda *words: taken.extend(words))
    # The velocity x multiplies x by 1 + 1/n in each of n steps.
    given = given_of(lambda at: at.x, IMAGES, count=3, seed=2)
    BUDGETS.draw(given, NOWHERE)
    assert list(taken[1]) == [1, 2, 4, 8, 16, 32, 64, 128]
    for steps, samples in taken[1].items():
        np.testing.assert_allclose(samples, to_samples(given.noise(3) * (1 + 1 / steps) ** steps), atol=1)
    assert taken[2] == ["class 0", "class 1", "class 2"]


def test_neighbours_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortcut_models.figures.nearest.CHUNK", 5)
    figure, given = Nearest(how="", neighbours=3), given_of(data=IMAGES)
    train = IMAGES.open("train").arrays["x"]
    queries = np.concatenate([train[[4]], np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)])
    indices, distances = figure.find(given, queries, np.arange(1, 12))
    assert indices[0, 0] == 4
    assert distances[0, 0] == 0
    for query, found, far in zip(queries, indices, distances, strict=True):
        every = np.array([np.sqrt(np.mean((query - train[i]).astype(np.float64) ** 2)) for i in range(1, 12)])
        assert found.tolist() == (np.argsort(every)[:3] + 1).tolist()
        np.testing.assert_allclose(far, np.sort(every)[:3], rtol=1e-6)


@pytest.mark.parametrize("held", [True, False])
def test_samples_and_held_out_examples_stand_beside_their_neighbours(
    monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    drawn = Rows(monkeypatch, images)
    data = Few(shape=(4, 4, 1), view="images", held=held)
    train = data.open("train").arrays["x"]
    # Whatever the noise, the sample is nearly the training image of its label's number: a copy.
    copies = jnp.asarray(train[:3])

    def copying(at: Asked) -> jax.Array:
        return copies[at.label.ravel().astype(jnp.int32)] + 0.01 - at.x

    Nearest(how="", neighbours=2, images=9).draw(given_of(copying, data, count=3, steps=1), NOWHERE)
    near = "nearest training images, RMS distance"
    assert drawn.titles == ["sample", near] + ["held-out", near] * held
    given = given_of(data=data)
    searched = given.indices("train", 9)
    assert len(set(searched)) == 9
    for number, row in enumerate(drawn.rows):
        np.testing.assert_allclose(row.blocks[0], to_samples(train[[number]] + 0.01), atol=1)
        assert row.notes[0] == ""
        if number in searched:
            np.testing.assert_array_equal(row.blocks[1][:1], to_samples(train[[number]]))
            assert row.notes[1] == "0.01 copy?"
        assert not row.notes[2].endswith("copy?")
        if held:
            chosen = given.indices("test", 3)
            np.testing.assert_array_equal(row.blocks[2], to_samples(data.open("test").arrays["x"][chosen[[number]]]))
    assert {number for number in range(3) if number in searched}
    assert drawn.foot.startswith("searched: 9 of 12 training images; 1 step; ")


def test_curves_are_grouped_and_read_until_the_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "images": 16, "loss": 2, "error/d=1": 0.5, "error/d=0": 1.0},
        {"step": 2, "images": 32, "loss": 2, "error/d=1": float("nan"), "error/d=0": 0.9, "fid/steps=4": 30},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 3, "ima')
    assert groups(read_metrics(tmp_path)) == {
        "error": {"d=1": [(16, 0.5)], "d=0": [(16, 1.0), (32, 0.9)]},
        "fid": {"steps=4": [(32, 30)]},
    }
    CURVES.draw(given_of(run=tmp_path), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_what_cannot_be_drawn_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    found = left_out(given_of())
    assert set(found) == {"curves", "interpolation", "nearest"}
    assert found["nearest"] == "one of the points says nothing by itself."
    assert "metrics.jsonl" in found["curves"]
    given = given_of(data=Unavailable(x_shape=(4, 4, 1), classes=3))
    found = left_out(given)
    assert set(found) == {"curves", "error", "reconstruction", "nearest"}
    assert found["error"].startswith("the data of this model did not come with it")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "images": 16, "loss": 2}\n')
    assert "no errors by step size yet" in left_out(given_of(run=tmp_path))["curves"]
    with pytest.raises(InputError, match="figure error cannot be drawn: the data of this model"):
        check(given, ["classes", "error"])
    assert left_out(given_of(), ()) == {}
    with pytest.raises(InputError, match="figure nearest cannot be drawn: one of the points"):
        draw_figures(given_of().model, tmp_path, ["nearest"])
    with pytest.raises(InputError, match="figure 'eror' is unknown: did you mean 'error'"):
        draw_figures(given_of().model, tmp_path, ["eror"])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"guidance": float("inf")}, "guidance is inf"),
    ],
)
def test_bad_wishes_are_refused(wish: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        given_of(**wish)


def test_the_command_draws_what_was_asked_for(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Given] = []
    drawn = SimpleNamespace(left_out={}, paths=[])
    monkeypatch.setattr(
        "shortcut_models.figures.folder.draw_folder", lambda wish, *_, **__: given.append(wish) or drawn
    )
    words = ["--weights", "raw", "--count", "3", "--steps", "2", "--seed", "5", "--guidance", "1.5"]
    assert cli.main(["figures", str(trained), *words]) == 0
    assert (given[0].model.weights, given[0].run) == ("raw", trained)
    assert (given[0].count, given[0].steps, given[0].seed, given[0].guidance) == (3, 2, 5, 1.5)


def test_an_interpolation_of_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no interpolation can be drawn: one of the points says nothing by itself"):
        draw_interpolation(given_of().model, tmp_path / "a.png")


def test_the_same_model_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    model = given_of(by_label, IMAGES).model
    names = ["classes", "reconstruction"]
    paths = [draw_figures(model, tmp_path / place, names, count=2, seed=1) for place in ("a", "b")]
    assert paths[0] == [tmp_path / "a" / "classes.png", tmp_path / "a" / "reconstruction.png"]
    for one, two in zip(*paths, strict=True):
        assert one.read_bytes() == two.read_bytes()
    other = draw_figures(model, tmp_path / "c", names, count=2, seed=2)
    assert other[0].read_bytes() != paths[0][0].read_bytes()
    draw_interpolation(model, tmp_path / "i.png", 2, 1, 0)
    assert (tmp_path / "i.png").stat().st_size > 1000


def test_guidance_reaches_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Rows(monkeypatch, images)
    given = given_of(by_label, IMAGES, count=1, guidance=2.0)
    Classes(how="").draw(given, NOWHERE)
    # Null is label 3: the velocity of label 1 is 3/4 + 2 (1/4 - 3/4).
    np.testing.assert_allclose(drawn.rows[1].blocks[0], to_samples(given.noise(3)[1:2] - 1 / 4), atol=1)
    assert drawn.foot == "step 7, ema weights, seed 0, guidance 2"


def test_every_figure_says_how_to_read_it_and_stands_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    for name in catalogue.FIGURES:
        assert find(name).how.endswith(".")
        assert f"`{name}`" in page


def test_the_null_label_has_no_name_though_the_data_have_a_class_of_that_number() -> None:
    """As CelebA's command trains: one class, never shown, of data with two."""
    known = SimpleNamespace(num_classes=1, data=SimpleNamespace(class_names=("female", "male")))
    given: Any = SimpleNamespace(model=known)
    assert Given.class_names(given, np.array([0, 1])) == ["female", ""]
