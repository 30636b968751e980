"""The command `shortcut`, as typed."""

import json
import resource
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import shortcut_models
from shortcut_models import cli, dry_run
from shortcut_models.presets import PRESETS


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command says that exits with 2, in a sentence of its own and without a traceback."""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as stop:  # tyro's own refusals
        status = stop.code
    said = capsys.readouterr()
    assert status == 2, said
    assert "Traceback" not in said.err + said.out
    return " ".join((said.err + said.out).replace("│", " ").split())


def used() -> float:
    """Seconds of processor time of all processes that have ended; what a clock shows on an idle machine."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def test_help_is_there_at_once_for_every_command(start_shortcut: Callable[..., subprocess.Popen[str]]) -> None:
    commands = ["train", "sample", "evaluate", "compare", "pairs", "presets"]
    for words in (["--help"], *([command, "--help"] for command in commands), ["presets"]):
        began = used()
        process = start_shortcut(*words)
        out, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert len(out) > 200
        assert used() - began < 2, words


def test_help_of_a_preset_lists_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "digits", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for setting in ("--run-dir", "--model.hidden-size", "--objective.share", "--optimizer.learning-rate"):
        assert setting in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "command 'trian' is unknown: did you mean 'train'?"),
        (["train", "digitz"], "preset 'digitz' is unknown: the presets are digits, glyphs, dit-b/2, dit-xl/2."),
        (["train", "--seed", "1"], "the first argument must be a preset"),
        (["presets", "nope"], "preset 'nope' is unknown"),
        (["train", "digits", "--model.hiden_size", "3"], "Perhaps you meant: --model.hidden-size"),
        (["train", "digits", "--objective", "magic"], "objective 'magic' is unknown"),
        (["train", "digits", "--objective"], "--objective needs a value"),
        (["train", "digits", "--max-steps", "0"], "max_steps is 0, but must be at least 1"),
        (["train", "digits", "--max-steps", "9000"], "the learning rate is 0 from step 8000 on"),
        (["train", "digits", "--batch_size", "1"], "0.25 x batch_size 1 = 0.25, which rounds to 0 images"),
        (["train", "digits", "--batch_size", "20"], "batch_size 20 is not a multiple of 8 device(s)"),
        (["train", "digits", "--model.num_classes", "5"], "'digits' has 10 labels, but model.num_classes is 5"),
        (["train", "digits", "--model.scan", "maybe"], "expected 0, 1, true or false"),
        (["train", "dit-b/2"], "dataset 'imagenet256-latents' cannot be read by this version"),
    ],
)
def test_bad_arguments_get_a_sentence_and_write_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", 0], "steps is 0, but sampling takes at least 1 step"),
        (["--count", -3], "count is -3, but at least 1 image must be drawn"),
        (["--labels", "0,10"], "label 10 is unknown: labels go from 0 to 9"),
        (["--labels", "cat"], "--labels cat must be balanced, random, or classes"),
        (["--labels", ",".join("01234567890")], "--labels names 11 labels, but the model knows 10 classes"),
        (["--out", "picture.jpg"], "must end in .png or .npz"),
        (["--weights", "old"], "ema"),
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
    for command in ("sample", "evaluate"):
        assert "does not exist" in refused(capsys, command, tmp_path / "missing")
        assert "holds no run.json" in refused(capsys, command, empty)
    run = trained_copy / "run.json"
    text = run.read_text()
    run.write_text(text.replace('"format": 1', '"format": 99'))
    assert "has format 99, but this version of shortcut-models reads format 1" in refused(
        capsys, "sample", trained_copy
    )
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
    said = refused(
        capsys, "train", "digits", "--run-dir", trained_copy, *tiny_flags, "--seed", 3, "--model.hidden-size", 32
    )
    assert "seed: 0 in the run, 3 now" in said
    assert "model.hidden_size: 16 in the run, 32 now" in said
    assert (trained_copy / "run.json").read_bytes() == before


def test_samples_are_written_as_asked_and_never_over_a_file(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    arrays, grid, folder = tmp_path / "a.npz", tmp_path / "g.png", tmp_path / "images"
    common = ["sample", str(trained), "--steps", "1", "--seed", "4"]
    assert cli.main([*common, "--count", "5", "--labels", "0,1,2", "--out", str(arrays)]) == 0
    with np.load(arrays) as found:
        images, labels = found["images"], found["labels"]
    assert images.shape == (5, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert np.issubdtype(labels.dtype, np.integer)

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


def test_raw_weights_draw_other_images_and_the_default_goes_into_the_run(trained_copy: Path) -> None:
    words = ["sample", str(trained_copy), "--steps", "1", "--count", "5"]
    drawn = {}
    for weights in ("ema", "raw"):
        out = trained_copy / f"{weights}.npz"
        assert cli.main([*words, "--weights", weights, "--out", str(out)]) == 0
        with np.load(out) as found:
            drawn[weights] = found["images"].astype(int)
    assert np.abs(drawn["ema"] - drawn["raw"]).max() > 0
    assert cli.main([*words, "--seed", "2"]) == 0
    assert (trained_copy / "sample-1-steps-seed-2.png").exists()


def test_the_parameters_of_a_dry_run_are_those_that_training_makes(
    capsys: pytest.CaptureFixture[str], trained: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    assert cli.main(["train", "digits", "--run-dir", str(tmp_path / "run"), *tiny_flags, "--dry-run"]) == 0
    count = sum(leaf.size for leaf in jax.tree.leaves(shortcut_models.load(trained).params))
    assert f"parameters   {count:,} (" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_tyros_own_refusals_exit_with_2_too(start_shortcut: Callable[..., subprocess.Popen[str]]) -> None:
    process = start_shortcut("sample", "somewhere", "--steps", "many")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--steps" in out + said
    assert "Traceback" not in out + said


def test_random_labels_are_a_function_of_seed_and_index(trained: Path, tmp_path: Path) -> None:
    drawn = {}
    for name, count, seed in (("a", 60, 0), ("b", 30, 0), ("c", 60, 1)):
        out = tmp_path / f"{name}.npz"
        words = ["--steps", "1", "--labels", "random", "--count", count, "--seed", seed, "--out", out]
        assert cli.main(["sample", str(trained), *map(str, words)]) == 0
        with np.load(out) as found:
            drawn[name] = found["labels"]
    assert set(drawn["a"]) == set(range(10))
    np.testing.assert_array_equal(drawn["a"][:30], drawn["b"])
    assert (drawn["a"] != drawn["c"]).any()


def test_the_originals_flags_and_ours_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    original = ["--model.hidden_size", "96", "--model.bootstrap_every", "4", "--batch_size", "32", "--model.depth=1"]
    ours = ["--model.hidden-size", "96", "--objective.share", "0.25", "--batch-size", "32", "--model.depth", "1"]
    shown = []
    for words in (original, ours):
        assert cli.main(["train", "digits", "--dry-run", *words]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "128 x 96" not in shown[0]
    assert "x 32 images" in shown[0]
    for line in ("parameters", "memory", "arithmetic", "blocks.qkv.kernel"):
        assert line in shown[0]


def test_a_preset_is_shown_as_the_flags_that_make_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(dry_run, "describe", lambda config: str(made.append(config)))
    assert cli.main(["presets"]) == 0
    assert {"digits", "dit-b/2", "dit-xl/2"} <= set(capsys.readouterr().out.split())
    for name, preset in PRESETS.items():
        assert cli.main(["presets", name]) == 0
        flags = [word for line in capsys.readouterr().out.splitlines()[1:] for word in shlex.split(line)]
        # Upon another preset, so that every flag has to do its part; the objective is the first to be read.
        assert cli.main(["train", "digits", *flags, "--dry-run"]) == 0
        assert made.pop() == preset.config
        capsys.readouterr()


def test_evaluating_writes_numbers_and_a_picture_once(capsys: pytest.CaptureFixture[str], trained_copy: Path) -> None:
    words = ["evaluate", str(trained_copy), "--steps", "1,2", "--count", "20"]
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    report = json.loads((trained_copy / "report.json").read_text())
    assert list(report["steps"]) == ["1", "2"]
    assert set(report["steps"]["1"]) == {"frechet-pixels-20", "frechet-digitnet1-20", "agreement-digitnet1-20"}
    assert report["protocol"]["weights"] == "ema"
    assert report["versions"]["jax"]
    assert f"{report['steps']['2']['frechet-pixels-20']:.3f}" in first
    with Image.open(trained_copy / "samples.png") as picture:
        assert picture.width > picture.height > 100
    assert cli.main(words) == 0
    assert "measured before" in capsys.readouterr().out
    assert "at least 10 images" in refused(capsys, "evaluate", trained_copy, "--count", 1)
    assert "--steps 0,4 must be whole numbers from 1 up" in refused(capsys, "evaluate", trained_copy, "--steps", "0,4")
    assert "whole numbers separated by commas" in refused(capsys, "evaluate", trained_copy, "--steps", "few")
