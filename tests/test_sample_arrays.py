"""Samples for other people's evaluators: the same as anybody draws, whatever disturbs the drawing."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import shortcut_models
from shortcut_models import InputError, cli, sample_arrays
from shortcut_models.data.pixels import to_uint8
from shortcut_models.model import Model
from shortcut_models.sample_arrays import write_arrays


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return shortcut_models.load(trained)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_arrays, "CHUNK", 16)


def test_the_arrays_are_the_samples_and_their_labels(
    model: Model, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made.npz"
    words = ["--steps", "2", "--count", "40", "--seed", "3", "--labels", "random", "--arrays", "adm"]
    assert cli.main(["sample", str(trained), *words, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"40 images in 2 steps: {out}\n"
    with np.load(out) as found:
        assert found.files == ["arr_0", "arr_1"]
        images, labels = found["arr_0"], found["arr_1"]
    assert (images.dtype, images.shape, labels.dtype) == (np.uint8, (40, 8, 8, 1), np.int64)
    assert len(set(labels)) > 3
    expected = to_uint8(model.decode(model.sample(labels, 2, seed=3)))
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["made.npz"]
    assert cli.main(["sample", str(trained), *words, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


class Killed(BaseException):
    """As a signal would end it."""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(40, dtype=np.int32) % 10
    whole, out = tmp_path / "whole.npz", tmp_path / "made.npz"
    write_arrays(whole, model, labels, 1, 1.0, 0)
    sample, drawn, left = Model.sample, [], [0]

    def dying(*given: Any, first: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            # In the middle of writing, too.
            with (tmp_path / ".made.npz-progress" / "images").open("ab") as file:
                file.write(b"half a sample")
            raise Killed
        drawn.append(first)
        return sample(*given, first=first)

    monkeypatch.setattr(Model, "sample", dying)
    for _ in range(2):
        left[0] = 1
        with pytest.raises(Killed):
            write_arrays(out, model, labels, 1, 1.0, 0)
        assert not out.exists()
    left[0] = 1
    write_arrays(out, model, labels, 1, 1.0, 0)
    assert out.read_bytes() == whole.read_bytes()
    assert drawn == [0, 16, 32]


def test_two_drawings_of_one_file_are_kept_apart(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, out, sample = np.arange(32, dtype=np.int32) % 10, tmp_path / "made.npz", Model.sample
    write_arrays(tmp_path / "whole.npz", model, labels, 1, 1.0, 0)

    def twice(*given: Any, first: int) -> Any:
        with pytest.raises(InputError, match=r"made\.npz is being drawn by process \d+ on .*: wait for it"):
            write_arrays(out, model, labels, 1, 1.0, 7)
        return sample(*given, first=first)

    monkeypatch.setattr(Model, "sample", twice)
    write_arrays(out, model, labels, 1, 1.0, 0)
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.npz", "whole.npz"]


def test_what_another_drawing_left_is_not_taken(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, out = np.arange(32, dtype=np.int32) % 10, tmp_path / "made.npz"
    sample = Model.sample

    def dying(*given: Any, first: int) -> Any:
        if first:
            raise Killed
        return sample(*given, first=first)

    with monkeypatch.context() as patch:
        patch.setattr(Model, "sample", dying)
        with pytest.raises(Killed):
            write_arrays(out, model, labels, 1, 1.0, 0)
    assert (tmp_path / ".made.npz-progress" / "done.json").exists()
    write_arrays(out, model, labels, 1, 1.0, 7)
    write_arrays(tmp_path / "whole.npz", model, labels, 1, 1.0, 7)
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_arrays_are_for_images_in_an_npz(
    model: Model, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sample", str(trained), "--arrays", "adm", "--out", "a.png"]) == 2
    assert "--arrays adm writes an .npz: say which, --out FILE.npz." in capsys.readouterr().err
    monkeypatch.setattr(type(model.data), "view", "points")
    with pytest.raises(InputError, match="--arrays adm is for images, but this model draws points"):
        write_arrays(tmp_path / "a.npz", model, np.zeros(2, np.int32), 1, 1.0, 0)
    assert not list(tmp_path.iterdir())


def test_what_another_model_left_is_not_gone_on_with(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the same step and kind, as two runs are that were trained equally long.
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    other = Model(model.network, doubled, model.objective, model.data, step=model.step, weights=model.weights)
    labels = np.arange(40, dtype=np.int32) % 10
    whole, out = tmp_path / "whole.npz", tmp_path / "made.npz"
    write_arrays(whole, model, labels, 1, 1.0, 0)
    sample = Model.sample

    def dying(*given: Any, first: int) -> Any:
        if first:
            raise Killed
        return sample(*given, first=first)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Model, "sample", dying)
        write_arrays(out, other, labels, 1, 1.0, 0)
    write_arrays(out, model, labels, 1, 1.0, 0)
    assert out.read_bytes() == whole.read_bytes()
