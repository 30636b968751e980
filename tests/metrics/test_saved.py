"""An evaluation that is killed goes on, and ends with the same numbers to the last bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortcut_models import catalogue
from shortcut_models import evaluate as module
from shortcut_models.data.base import Data
from shortcut_models.errors import InputError
from shortcut_models.evaluate import evaluate
from shortcut_models.metrics import references, saved
from shortcut_models.metrics.references import read

POINTS: Data = catalogue.find("data set", catalogue.DATA, "points")(noise=0.0625)  # References of its own.
DIGITS: Data = catalogue.find("data set", catalogue.DATA, "digits")()


class Killed(BaseException):
    """As a signal would end it."""


class Model:
    """Real samples with noise; dies when it is told to."""

    def __init__(self, data: Data, die_after: int = 10**9) -> None:
        self.images, _ = read(data.open(), np.arange(400))
        self.num_classes, self.left, self.drawn = data.num_classes, die_after, 0

    def sample(self, labels: np.ndarray, steps: int, guidance: float, seed: int, *, first: int) -> np.ndarray:
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.drawn += len(labels)
        rng = np.random.default_rng([seed, first])
        picked = self.images[rng.integers(0, 400, len(labels))].astype(np.float32)
        scale = 127.5 if picked.ndim == 4 else 1
        return (picked / np.float32(scale) - np.float32(picked.ndim == 4)) * np.float32(guidance + 1 / steps)

    def decode(self, x: np.ndarray) -> np.ndarray:
        return x


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    monkeypatch.setattr(references, "DRAWN", 300)
    monkeypatch.setattr(module, "chunk_size", lambda shape: 16)  # noqa: ARG005


def run(data: Data, model: Model, folder: Path | None, **settings: Any) -> Any:
    return evaluate(model, data, [1, 2], 60, resume=folder, **settings)


@pytest.mark.parametrize("data", [POINTS, DIGITS], ids=["points", "digits"])
def test_killed_at_any_chunk_it_ends_with_the_same_numbers(data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "progress"
    whole = run(data, Model(data), None)
    for steps in range(1, 8):
        models = []
        while True:
            models.append(Model(data, die_after=steps))
            try:
                found = run(data, models[-1], folder)
                break
            except Killed:
                assert (folder / "state.npz").exists()
        assert found.report == whole.report
        for budget in (1, 2):
            np.testing.assert_array_equal(found.samples[budget], whole.samples[budget])
        assert sum(model.drawn for model in models) == 120  # Nothing is drawn twice.
        assert not folder.exists()


def test_what_another_evaluation_left_is_not_taken(tmp_path: Path) -> None:
    def die(**settings: Any) -> None:
        with pytest.raises(Killed):
            run(POINTS, Model(POINTS, die_after=3), tmp_path / "progress", **settings)

    for settings in ({"seed": 1}, {"guidance": 2.0}, {"model_key": "raw"}, {"metrics": ["energy"]}, {"labels": "none"}):
        die()
        model = Model(POINTS)
        found = run(POINTS, model, tmp_path / "progress", **settings)
        assert model.drawn == 120
        assert found.report == run(POINTS, Model(POINTS), None, **settings).report


def test_what_was_measured_outlives_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InputError("no such VAE")

    folder = tmp_path / "progress"
    for die in (False, True):
        if die:
            with pytest.raises(Killed):
                run(POINTS, Model(POINTS, die_after=3), folder)
        with monkeypatch.context() as patch:
            patch.setattr(Model, "decode", refuse)
            with pytest.raises(InputError, match="no such VAE"):
                run(POINTS, Model(POINTS), folder)
        assert folder.exists() == die  # Nothing was measured before the first one.
    model = Model(POINTS)
    run(POINTS, model, folder)
    assert model.drawn < 120


def test_a_state_that_is_damaged_starts_from_nothing(tmp_path: Path) -> None:
    folder, whole = tmp_path / "progress", run(POINTS, Model(POINTS), None).report
    for damage in ("state.npz", "rows-0.f32"):
        with pytest.raises(Killed):
            run(POINTS, Model(POINTS, die_after=3), folder)
        (folder / damage).write_bytes((folder / damage).read_bytes()[:50])
        model = Model(POINTS)
        assert run(POINTS, model, folder).report == whole
        assert model.drawn == 120
    with pytest.raises(Killed):
        run(POINTS, Model(POINTS, die_after=3), folder)
    (folder / "mine.txt").write_text("kept")
    run(POINTS, Model(POINTS), folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_two_evaluations_in_one_place_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "progress"

    class Second(Model):
        """Begins another evaluation there, in the midst of the first."""

        def decode(self, x: np.ndarray) -> np.ndarray:
            told = rf"^{tmp_path} is being evaluated by process \d+ on .*: wait for it, or write to .* --out\.$"
            with pytest.raises(InputError, match=told):
                run(POINTS, Model(POINTS), folder, seed=1)
            return x

    assert run(POINTS, Second(POINTS), folder).report == run(POINTS, Model(POINTS), None).report
    assert list(tmp_path.iterdir()) == []


def test_seeds_that_cannot_be_drawn_are_refused_before_anything_is(tmp_path: Path) -> None:
    for seed, seeds in ((-1, 1), (2**32 - 1, 2)):
        model = Model(POINTS)
        with pytest.raises(InputError, match=rf"^--seed is {seed}, but must be"):
            run(POINTS, model, tmp_path / "progress", seed=seed, seeds=seeds)
        assert model.drawn == 0
    assert list(tmp_path.iterdir()) == []
