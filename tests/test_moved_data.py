"""A run whose data have moved: it is sampled, exported and measured without them, and goes on with them elsewhere."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shortcut_models import cli, load, runs
from shortcut_models.config import Config
from shortcut_models.data import choose
from shortcut_models.data.folder import Folder
from shortcut_models.data.prepared import Prepared
from shortcut_models.data.unavailable import stand_in
from shortcut_models.prepare import prepare
from tests.test_pairs import make

NETWORK = ["--model.hidden-size", "16", "--model.depth", "1", "--model.num-heads", "1", "--model.patch-size", "4"]
TRAIN = [*NETWORK, "--model.mlp-ratio", "1", "--batch-size", "8", "--max-steps"]


@pytest.fixture(scope="module")
def trained_on_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared images of two classes, and a run of two steps on them."""
    root = tmp_path_factory.mktemp("moved")
    rng = np.random.default_rng(0)
    for number in range(8):
        file = root / "source" / ("cats", "dogs")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    prepare(str(root / "source"), root / "data", size=16)
    train = ["train", "images16", "--data", str(root / "data"), "--run-dir", str(root / "run")]
    assert cli.main([*train, *TRAIN, "2"]) == 0
    shutil.move(root / "data", root / "elsewhere")
    return root


def run_again(root: Path, data: str) -> int:
    return cli.main(["train", "images16", "--data", str(root / data), "--run-dir", str(root / "run"), *TRAIN, "3"])


def test_without_them_it_is_sampled_drawn_and_exported(trained_on_images: Path, tmp_path: Path) -> None:
    run, data = trained_on_images / "run", trained_on_images / "elsewhere"
    for words in (
        ["sample", run, "--labels", "1,0", "--count", "2", "--out", tmp_path / "a.png"],
        ["figures", run],
        ["report", run],
        ["export", run, tmp_path / "model"],
        ["evaluate", run, "--data", data, "--steps", "1", "--count", "8", "--out", tmp_path / "report.json"],
    ):
        assert cli.main(list(map(str, words))) == 0, words
    assert load(run).class_names == load(tmp_path / "model").class_names == ("cats", "dogs")
    assert "frechet-pixels8x8-8" in json.loads((tmp_path / "report.json").read_text())["steps"]["1"]


def test_what_needs_them_says_where_to_name_them(
    trained_on_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", trained_on_images / "run", "--steps", "1", "--count", "8", "--out", tmp_path / "report.json"]
    assert cli.main(list(map(str, words))) == 2
    assert "or are no longer where they were: name metrics" in capsys.readouterr().err


def test_it_goes_on_with_the_same_data_elsewhere_and_with_no_others(
    trained_on_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained_on_images, tmp_path / "copy")
    root = tmp_path / "copy"
    (root / "source" / "dogs" / "1.png").unlink()
    prepare(str(root / "source"), root / "fewer", size=16)
    assert run_again(root, "fewer") == 2
    assert f"data.path: {trained_on_images / 'data'} in the run, {root / 'fewer'} now" in capsys.readouterr().err
    assert run_again(root, "elsewhere") == 0
    shown: Any = runs.read_shown(root / "run")
    assert shown.path == str(root / "elsewhere")  # Noted, so that the next command finds them.


def test_what_is_known_of_the_data_that_pairs_show_outlives_them(tiny: Config, tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "source" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "source" / name / "0.png")
    prepare(str(tmp_path / "source"), tmp_path / "data", size=8)
    pairs = make(tmp_path / "pairs", 4, data=Prepared(path=str(tmp_path / "data")))
    (tmp_path / "run").mkdir()
    runs.create_or_check(tmp_path / "run", replace(tiny, data=pairs), "first")
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    runs.create_or_check(tmp_path / "run", replace(tiny, data=pairs, max_steps=9), "again")
    assert runs.read_shown(tmp_path / "run").class_names == ("cats", "dogs")


def test_what_is_noted_of_latents_decodes_as_they_do(tmp_path: Path) -> None:
    class Encoder:
        identity, file_sha256, dtype, scale = "fake", "of its file", "float32", 0.5

        def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            mean = images[:, ::8, ::8]
            return mean, np.zeros_like(mean)

    for name in "ab":
        (tmp_path / "source" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "source" / name / "0.png")
    prepare(Folder(path=str(tmp_path / "source")), tmp_path / "latents", size=16, vae=Encoder())
    data = choose(tmp_path / "latents")
    known = stand_in(data)
    codec: Any = known.codec
    assert (known.shape, known.num_classes, known.class_names) == (data.shape, 2, ("a", "b"))
    assert (type(codec), codec.identity, codec.scale) == (type(data.codec), "fake", 0.5)
