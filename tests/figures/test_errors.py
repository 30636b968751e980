"""Errors against time, by networks whose errors are known."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from known import POINTS, Few, given_of
from matplotlib.axes import Axes

from shortcut_models.figures.error import Error
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.shortcut import Shortcut

ERROR = Error(examples=5, jumped=5, times=4, budgets=(1, 2, 8), needs_data=True, how="")


def pairs(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Noise and examples that the figure takes."""
    given = given_of()
    x = POINTS.open(split).arrays["x"][given.indices(split, 5)]
    return given.noise(5), x


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_velocity_is_compared_with_the_data_of_the_split_at_every_time(split: str) -> None:
    t, error, doubt = ERROR.data_error(given_of(lambda at: at.x + 2 * at.t + 8 * at.d), split)
    assert t.tolist() == [0, 0.25, 0.5, 0.75]
    x0, x1 = pairs(split)
    for time, found, spread in zip(t, error, doubt, strict=True):
        each = [np.mean(((1 - time) * a + time * b + 2 * time - (b - a)) ** 2) for a, b in zip(x0, x1, strict=True)]
        assert found == pytest.approx(np.mean(each), rel=1e-5)
        assert spread == pytest.approx(np.std(each) / np.sqrt(5), rel=1e-4)


def test_a_jump_is_compared_with_the_flow_over_its_length() -> None:
    """Euler's method multiplies x by 1 + 1/128 in each step along the velocity x; a jump with velocity 3x by 1 + 3d."""
    given = given_of(lambda at: jnp.where(at.d == 0, at.x, 3 * at.x))
    x0, x1 = pairs("test")
    for budget, times in ((1, [0]), (2, [0, 0.5]), (8, [0.125, 0.375, 0.625, 0.875])):
        t, error = ERROR.jump_error(given, budget)
        assert t.tolist() == times
        for time, found in zip(times, error, strict=True):
            x = (1 - time) * x0 + time * x1
            away = x * (1 + 3 / budget) - x * (1 + 1 / 128) ** (128 / budget)
            assert found == pytest.approx(np.mean((away * budget) ** 2), rel=1e-4)


def test_the_flow_knows_the_time_and_the_label_of_every_example() -> None:
    """A jump that is told neither d nor t is right if the velocity is a constant of the label."""
    given = given_of(lambda at: 0 * at.x + at.label)
    assert ERROR.jump_error(given, 2)[1] == pytest.approx([0, 0], abs=1e-9)
    # The velocity 2t takes x by length * (2t + length), up to Euler's step; at d > 0 the network says 0.
    given = given_of(lambda at: jnp.where(at.d == 0, 2 * at.t + 0 * at.x, 0 * at.x))
    t, error = ERROR.jump_error(given, 2)
    assert np.sqrt(error) == pytest.approx(2 * t + 0.5 - 1 / 128, rel=1e-4)


def test_a_method_without_a_velocity_jumps_to_the_end_at_every_time() -> None:
    given = given_of(lambda at: at.d + 0 * at.x, objective=Consistency())
    t, error, _ = ERROR.data_error(given, "test")
    # At most four of the times of 1, 2, 8 and 16 jumps, all of which go to the end.
    assert (16 * t).tolist() == [0, 2, 3, 6, 7, 8, 10, 11, 14, 15]
    x0, x1 = pairs("test")
    assert error == pytest.approx([np.mean((1 - time - (x1 - x0)) ** 2) for time in t], rel=1e-4)


def test_examples_of_all_times_fit_in_chunks_that_are_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    given = given_of(lambda at: at.x * jnp.where(at.d == 0, 1, 2) + at.t)
    whole = ERROR.jump_error(given, 8)[1], ERROR.data_error(given, "test")[1]
    monkeypatch.setattr("shortcut_models.figures.error.CHUNK", 7)
    assert ERROR.jump_error(given, 8)[1] == pytest.approx(whole[0], rel=1e-6)
    assert ERROR.data_error(given, "test")[1] == pytest.approx(whole[1], rel=1e-6)


@pytest.mark.parametrize(
    ("objective", "held", "panels"),
    [(Shortcut(), True, 2), (Shortcut(), False, 2), (FlowMatching(), True, 2), (Consistency(), True, 1)],
)
def test_the_figure_says_which_examples_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Shortcut, held: bool, panels: int
) -> None:
    lines: list[str] = []
    titles: list[str] = []
    plot, set_title = Axes.plot, Axes.set_title
    monkeypatch.setattr(Axes, "plot", lambda axes, *a, **k: (lines.append(k["label"]), plot(axes, *a, **k))[1])
    monkeypatch.setattr(Axes, "set_title", lambda axes, text: (titles.append(text), set_title(axes, text))[1])
    ERROR.draw(given_of(data=Few(held=held), objective=objective), tmp_path / "error.png")
    told = ["test split (never trained on)", "train split"] if held else ["train split (none is held out)"]
    assert lines == told + ["d = 1", "d = 1/2", "d = 1/8"] * (panels == 2)
    assert len(titles) == panels
    assert (f"({'test' if held else 'train'} split)" in titles[-1]) == (panels == 2)
