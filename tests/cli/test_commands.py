"""The commands, from words to files."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import shortcut_models
from shortcut_models import cli, compare
from shortcut_models import train as training
from shortcut_models.config import Config


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command says that exits with 2."""
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("shortcut: ")
    return said.err.removeprefix("shortcut: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "0,10"], "label 10 is unknown: labels go from 0 to 9"),
        (["--labels", "cat"], "--labels names cat, which is no class: use balanced"),
        (["--labels", ",".join("01234567890")], "--labels names 11 labels, but the model knows 10 classes"),
        (["--out", "picture.jpg"], "must end in .png or .npz"),
    ],
)
def test_bad_samples_get_a_sentence_and_write_nothing(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path, words: list[object], message: str
) -> None:
    before = sorted(trained.rglob("*"))
    words = [tmp_path / "picture.jpg" if word == "picture.jpg" else word for word in words]
    out = [] if "--out" in words else ["--out", tmp_path / "new.png"]
    assert message in refused(capsys, "sample", trained, *words, *out)
    assert not list(tmp_path.iterdir())
    assert sorted(trained.rglob("*")) == before


def test_run_folders_that_are_none_are_refused(
    capsys: pytest.CaptureFixture[str], trained_copy: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for command in ("sample", "evaluate", "pairs"):
        assert "does not exist" in refused(capsys, command, tmp_path / "missing")
        assert "holds no run.json" in refused(capsys, command, empty)
    run = trained_copy / "run.json"
    text = run.read_text()
    run.write_text(text[: len(text) // 2])
    assert "is damaged" in refused(capsys, "sample", trained_copy)
    run.write_text(text)
    shutil.rmtree(trained_copy / "checkpoints")
    assert "has no whole checkpoint yet" in refused(capsys, "sample", trained_copy)
    # A folder with something else in it is left alone.
    (empty / "letter.txt").write_text("dear")
    assert "exists but holds no run" in refused(capsys, "train", "digits", "--run-dir", empty)
    assert [path.name for path in empty.iterdir()] == ["letter.txt"]


def test_a_run_is_not_continued_with_other_settings(
    capsys: pytest.CaptureFixture[str], trained_copy: Path, tiny_flags: list[str]
) -> None:
    before = (trained_copy / "run.json").read_bytes()
    words = ["--run-dir", trained_copy, *tiny_flags, "--seed", 3, "--model.hidden-size", 32]
    said = refused(capsys, "train", "digits", *words)
    assert "seed: 0 in the run, 3 now" in said
    assert "model.hidden_size: 16 in the run, 32 now" in said
    assert (trained_copy / "run.json").read_bytes() == before


def test_training_gets_the_settings_the_folder_and_the_command(
    monkeypatch: pytest.MonkeyPatch, tiny: Config, tiny_flags: list[str], tmp_path: Path
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(training, "train", lambda *words: given.append(words) or 7)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "digits", *tiny_flags]) == 7
    assert given.pop()[:3] == (tiny, Path("runs/digits"), " ".join(["shortcut train digits", *tiny_flags]))
    assert cli.main(["train", "digits", "--run-dir=a b", *tiny_flags]) == 7
    assert given.pop()[:3] == (tiny, Path("a b"), " ".join(["shortcut train digits '--run-dir=a b'", *tiny_flags]))


def test_samples_are_written_as_asked_and_never_over_a_file(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    arrays, grid, folder = tmp_path / "a.npz", tmp_path / "g.png", tmp_path / "images"
    common = ["sample", str(trained), "--steps", "1", "--seed", "4"]
    assert cli.main([*common, "--count", "5", "--labels", "0,1,2", "--out", str(arrays)]) == 0
    assert capsys.readouterr().out == f"5 images in 1 step: {arrays}\n"
    with np.load(arrays) as found:
        images, labels = found["images"], found["labels"]
    assert images.shape == (5, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2, 0, 1]
    model = shortcut_models.load(trained)
    expected = model.decode(model.sample([0, 1, 2, 0, 1], 1, seed=4))
    np.testing.assert_array_equal(images, np.clip(np.round((expected + 1) * 127.5), 0, 255))

    assert cli.main([*common, "--count", "5", "--labels", "0,1,2", "--out", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00000-0.png", "00001-1.png", "00002-2.png", "00003-0.png", "00004-1.png"]
    with Image.open(folder / names[3]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), images[3, :, :, 0])

    assert cli.main([*common, "--count", "20", "--out", str(grid)]) == 0
    # Two rows of ten classes, enlarged six times, with a border of a pixel all around.
    with Image.open(grid) as picture:
        assert picture.size == (10 * 50, 2 * 50)
    capsys.readouterr()
    for path in (arrays, grid, folder):
        before = path.read_bytes() if path.is_file() else names
        assert "exists already" in refused(capsys, *common, "--out", path)
        assert before == (path.read_bytes() if path.is_file() else sorted(p.name for p in folder.iterdir()))


def drawn(run: Path, out: Path, *words: object) -> dict[str, np.ndarray]:
    given = {"--steps": 1, "--count": 5, **dict(zip(words[::2], words[1::2], strict=True))}
    assert cli.main(["sample", str(run), "--out", str(out), *(str(w) for pair in given.items() for w in pair)]) == 0
    with np.load(out) as found:
        return dict(found)


def test_every_flag_of_sampling_reaches_the_samples(trained: Path, tmp_path: Path) -> None:
    changes = [(), ("--seed", 1), ("--weights", "raw"), ("--guidance", 4.0), ("--steps", 3), ("--labels", "none")]
    images = [drawn(trained, tmp_path / f"{i}.npz", *words)["images"].tobytes() for i, words in enumerate(changes)]
    assert len(set(images)) == len(changes)


def test_no_label_is_asked_for_as_the_null_label(trained: Path, tmp_path: Path) -> None:
    found = drawn(trained, tmp_path / "a.npz", "--labels", "none", "--count", 3)
    assert found["labels"].tolist() == [10, 10, 10]
    model = shortcut_models.load(trained)
    expected = model.decode(model.sample(np.full(3, 10), 1))
    np.testing.assert_array_equal(found["images"], np.clip(np.round((expected + 1) * 127.5), 0, 255))


def test_the_default_goes_into_the_run(trained_copy: Path) -> None:
    draw = ["sample", str(trained_copy), "--steps", "1", "--seed", "2"]
    assert cli.main(draw) == cli.main([*draw, "--count", "2", "--labels", "7,0", "--guidance", "1.5"]) == 0
    names = {"sample-1-step-seed-2.png", "sample-1-step-seed-2-count-2-labels-7,0-guidance-1.5.png"}
    assert {path.name for path in trained_copy.glob("*.png")} >= names


def test_random_labels_are_a_function_of_seed_and_index(trained: Path, tmp_path: Path) -> None:
    a, b, c = (
        drawn(trained, tmp_path / f"{count}-{seed}.npz", "--labels", "random", "--count", count, "--seed", seed)[
            "labels"
        ]
        for count, seed in ((60, 0), (30, 0), (60, 1))
    )
    assert set(a) == set(range(10))
    np.testing.assert_array_equal(a[:30], b)
    assert (a != c).any()


@pytest.mark.slow
def test_the_parameters_of_a_dry_run_are_those_that_training_makes(
    capsys: pytest.CaptureFixture[str], trained: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    assert cli.main(["train", "digits", "--run-dir", str(tmp_path / "run"), *tiny_flags, "--dry-run"]) == 0
    count = sum(leaf.size for leaf in jax.tree.leaves(shortcut_models.load(trained).params))
    assert f"parameters   {count:,} (" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_evaluating_writes_numbers_and_a_picture_once(capsys: pytest.CaptureFixture[str], trained_copy: Path) -> None:
    words = ["evaluate", str(trained_copy), "--steps", "1,2", "--count", "20"]
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    report = json.loads((trained_copy / "report.json").read_text())
    assert list(report["steps"]) == ["1", "2"]
    assert report["protocol"]["weights"] == "ema"
    # Another run of as many steps at the same place is another model.
    assert report["protocol"]["model"] == shortcut_models.load(trained_copy).fingerprint()
    assert report["versions"]["jax"]
    assert report["command"] == " ".join(["shortcut", *words])
    value = next(iter(report["steps"]["2"].values()))
    assert f"{value:.3f}" in first
    with Image.open(trained_copy / "samples.png") as picture:
        assert picture.width > picture.height > 100
    assert cli.main(words) == 0
    assert "measured before" in capsys.readouterr().out
    # Another setting is another measurement, and another number.
    for flags in (["--seed", "1"], ["--guidance", "3"], ["--weights", "raw"]):
        assert cli.main([*words, *flags]) == 0
        assert "measured before" not in capsys.readouterr().out
        other = json.loads((trained_copy / "report.json").read_text())
        assert next(iter(other["steps"]["2"].values())) != value
    before = (trained_copy / "report.json").read_bytes()
    assert "at least 10" in refused(capsys, "evaluate", trained_copy, "--count", 9)
    assert "metric 'beauty' is unknown" in refused(capsys, "evaluate", trained_copy, "--metrics", "beauty")
    assert (trained_copy / "report.json").read_bytes() == before


def test_pairs_are_drawn_as_asked(trained_copy: Path) -> None:
    words = ["pairs", str(trained_copy), "--count", "3", "--steps", "2", "--weights", "raw", "--seed", "5"]
    assert cli.main(words) == 0
    found = {name: np.load(trained_copy / "pairs" / f"{name}.npy") for name in ("x", "noise", "label")}
    model = shortcut_models.load(trained_copy, "raw")
    assert found["label"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found["noise"], model.noise(5, 0, 3))
    np.testing.assert_allclose(found["x"], model.sample([0, 1, 2], 2, seed=5), atol=1e-5)
    out = trained_copy / "guided"
    assert cli.main([*words, "--guidance", "3", "--out", str(out)]) == 0
    assert not np.allclose(np.load(out / "x.npy"), found["x"])


def test_a_comparison_gets_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[tuple[compare.Comparison, Path, str]] = []

    def pretend(comparison: compare.Comparison, out: Path, command: str) -> int:
        given.append((comparison, out, command))
        out.mkdir(parents=True)
        (out / "table.md").write_text("the table\n")
        return 0

    monkeypatch.setattr(compare, "compare", pretend)
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "1,2", "--seeds", "2", "--batch-size", "32", "--max-steps=9", "--count", "50"]
    assert "--max-steps is set by the comparison" in refused(capsys, "compare", "digits", *words)
    words.remove("--max-steps=9")
    assert cli.main(["compare", "digits", *words, "--objectives", "shortcut,consistency"]) == 0
    assert capsys.readouterr().out.startswith("the table\n")
    found, out, command = given.pop()
    assert (found.steps, found.seeds, found.count, found.objectives) == (
        (1, 2),
        (0, 1),
        50,
        ("shortcut", "consistency"),
    )
    assert found.base.batch_size == 32
    assert found.budget == found.base.max_steps * 32
    assert out == Path("runs/compare-digits")
    assert command.startswith("shortcut compare digits --steps 1,2 ")
    assert cli.main(["compare", "digits", "--seeds", "5,", "--budget", "64000", "--guidance", "2", "--out", "o"]) == 0
    found, out, _ = given.pop()
    assert (found.seeds, found.budget, found.guidance, out) == ((5,), 64000, 2.0, Path("o"))


def test_python_runs_the_package(
    start_shortcut: Callable[..., subprocess.Popen[str]], trained: Path, tmp_path: Path
) -> None:
    process = start_shortcut("sample", trained, "--steps", 1, "--count", 2, "--out", tmp_path / "a.npz")
    out, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")
    assert out == f"2 images in 1 step: {tmp_path / 'a.npz'}\n"
