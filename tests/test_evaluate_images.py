"""Images that are there, measured: a folder, a zip, an .npz, a data set; and what cannot be measured."""

import json
import re
import zipfile
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError, cli, metrics
from shortcut_models.data.base import Data
from shortcut_models.data.digits import Digits
from shortcut_models.data.folder import Folder
from shortcut_models.data.npz import Npz
from shortcut_models.evaluate import find_images, measure_images, table
from shortcut_models.metrics import saved
from shortcut_models.metrics import statistics as stats_module
from shortcut_models.metrics.features import inception
from shortcut_models.metrics.features.inception import Inception, InceptionFeatures
from shortcut_models.metrics.yardstick import Wish, choose_yardstick
from tests.metrics.quick import Quick

RNG = np.random.default_rng(0)
COUNT = 40
COLOURS = RNG.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
OTHERS = RNG.integers(0, 200, (50, 8, 8, 3), dtype=np.uint8)

PIXELS = Wish(metrics=("frechet-pixels",))


def write(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


def as_folder(place: Path) -> Path:
    return write(place / "made", COLOURS)


def as_zip(place: Path) -> Path:
    folder = write(place / "made", COLOURS)
    with zipfile.ZipFile(place / "made.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return place / "made.zip"


def as_npz(place: Path) -> Path:
    np.savez(place / "made.npz", COLOURS)
    return place / "made.npz"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    np.savez(tmp_path / "real.npz", OTHERS)
    return tmp_path / "real.npz"


def pixels(images: np.ndarray) -> np.ndarray:
    return (images / 127.5 - 1).reshape(len(images), -1)


@pytest.mark.parametrize("made", [as_folder, as_zip, as_npz])
def test_the_number_is_that_of_the_formula_wherever_the_images_lie(
    tmp_path: Path, real: Path, made: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    target, out = made(tmp_path), tmp_path / "numbers.json"
    words = ["evaluate", str(target), "--data", str(real), "--metrics", "frechet-pixels", "--out", str(out)]
    assert cli.main(words) == 0
    report = json.loads(out.read_text())
    expected = metrics.frechet(pixels(COLOURS), pixels(OTHERS))
    assert report["images"] == {f"frechet-pixels-{COUNT}": pytest.approx(expected, rel=1e-6)}
    assert report["about"]["images"]["count"] == report["about"]["images"]["of"] == COUNT
    assert report["about"]["data"]["crop"] == report["about"]["images"]["crop"] == "center"
    assert report["about"]["data"]["path"] == str(real)
    assert report["about"]["labels"] == "none"
    assert report["command"] == " ".join(["shortcut", *words])
    said = capsys.readouterr().out
    assert f"{expected:.3f}" in said
    assert cli.main(words) == 0
    assert "measured before" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_part_is_drawn_by_the_seed_and_a_split_can_be_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "made.npz", COLOURS)
    target = Npz(path=str(tmp_path / "made.npz"))
    np.savez(tmp_path / "real.npz", OTHERS)
    yardstick = choose_yardstick(Npz(path=str(tmp_path / "real.npz")), (8, 8, 3), PIXELS, True)
    found = [measure_images(target, yardstick, 30, seed)["images"]["frechet-pixels-30"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    picked = np.sort(np.random.default_rng(1).choice(COUNT, 30, replace=False))
    assert found[2] == pytest.approx(metrics.frechet(pixels(COLOURS[picked]), pixels(OTHERS)), rel=1e-6)
    with pytest.raises(InputError, match="split 'validation' is unknown"):
        measure_images(target, yardstick, split="validation")


def test_labels_of_the_images_are_what_a_classifier_is_to_agree_with() -> None:
    found = measure_images(Digits(), choose_yardstick(Digits(), (8, 8, 1), Wish()))
    assert found["images"]["agreement-digitnet1-1797"] > 0.98
    assert found["images"]["frechet-pixels-1797"] == pytest.approx(0, abs=1e-9)
    assert found["about"]["labels"] == "those of the images"
    assert table(found).splitlines()[1].startswith("images")


class Killed(BaseException):
    """As a signal would end it."""


def test_killed_it_goes_on_with_the_same_number(tmp_path: Path, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Folder(path=str(as_folder(tmp_path)))
    yardstick = choose_yardstick(Npz(path=str(real)), (8, 8, 3), PIXELS, True)
    monkeypatch.setattr("shortcut_models.evaluate.chunk_size", lambda shape: 16)  # noqa: ARG005
    monkeypatch.setattr(saved, "SECONDS", 0.0)
    whole, read = measure_images(target, yardstick), []

    def dying(self: Any, metrics: Any, left: list[int] = [2]) -> Any:  # noqa: B006
        read.append(1)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return examine(self, metrics)

    examine = saved.Measurement.examine
    monkeypatch.setattr(saved.Measurement, "examine", dying)
    with pytest.raises(Killed):
        measure_images(target, yardstick, resume=tmp_path / "progress")
    assert measure_images(target, yardstick, resume=tmp_path / "progress") == whole
    assert len(read) == 4  # One was killed, three were looked at.
    assert not (tmp_path / "progress").exists()
    # What other images gave is not gone on with.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(saved.Measurement, "examine", partialmethod(dying, left=[2]))
        measure_images(target, yardstick, 20, seed=1, resume=tmp_path / "progress")
    other = measure_images(target, yardstick, 20, seed=2, resume=tmp_path / "progress")
    assert other == measure_images(target, yardstick, 20, seed=2)


# --- What cannot be measured


class There(Inception):
    """A network that is there."""

    def __init__(self) -> None:
        self.sha256 = "0" * 64


def nothing(place: Path) -> Path:
    (place / "made").mkdir()
    return place / "made"


def one(place: Path) -> Path:
    return write(place / "made", COLOURS[:1])


def grey_files(place: Path) -> Path:
    return write(place / "made", COLOURS[..., 0])


def grey_arrays(place: Path) -> Path:
    np.savez(place / "made.npz", COLOURS[..., :1])
    return place / "made.npz"


def mixed(place: Path) -> Path:
    folder = as_folder(place)
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "017.png")
    return folder


def statistics(place: Path) -> Path:
    np.savez(place / "made.npz", mu=np.zeros(3), sigma=np.eye(3))
    return place / "made.npz"


def broken(place: Path) -> Path:
    folder = as_folder(place)
    (folder / "017.png").write_bytes((folder / "017.png").read_bytes()[:60])
    return folder


@pytest.mark.parametrize(
    ("made", "words", "message"),
    [
        (nothing, [], "made holds no images, and is no run either: it holds no run.json."),
        (one, [], "made holds 1 image, but measuring takes at least 2."),
        (as_folder, ["--count", "41"], "--count is 41, but"),
        (as_folder, ["--count", "1"], "--count is 1, but"),
        (as_folder, ["--count", "9", "--seed", "-1"], "--seed is -1, but must be a whole number from 0 up."),
        (mixed, [], "017.png of"),
        (mixed, [], "is 8x9, but others are 8x8: images are measured at one size"),
        (broken, [], "017.png of"),
        (broken, [], "is no image to use: corrupt"),
        (grey_files, ["--metrics", "fid-adm"], "holds grey images, but fid-adm compares them with ones that are not"),
        (grey_arrays, ["--metrics", "fid-adm"], "holds grey images, but fid-adm compares them with ones that are not"),
        (as_folder, ["--metrics", "prdc", "--count", "5"], "made, not 5: take more, or leave this metric out."),
        (as_folder, ["--metrics", "prdc", "--count", "5"], "prdc takes at least 6 images of"),
        (as_folder, ["--metrics", "fid-adm", "--stats-protocol", "adm"], "--stats-protocol adm says how the file of"),
        (statistics, [], "holds statistics for FID, no images: give it as --stats."),
        (as_folder, ["--steps", "4"], "--steps does not go with"),
        (as_folder, ["--labels", "none"], "--labels does not go with"),
        (as_folder, ["--protocol", "fid-mine"], "--protocol fid-mine is unknown: the protocols are fid-paper,"),
        (as_folder, ["--protocol", "fid-adm", "--metrics", "kid"], "--protocol fid-adm stands for metrics"),
        (as_folder, ["--out", "numbers.txt"], "--out numbers.txt must end in .json."),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    tmp_path: Path,
    real: Path,
    made: Callable[[Path], Path],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inception, "find_inception", lambda file, any_file: There())  # noqa: ARG005
    monkeypatch.setattr(InceptionFeatures, "__call__", lambda *_: {"pool": np.zeros((50, 4), np.float32)})
    out = [] if "--out" in words else ["--out", str(tmp_path / "numbers.json")]
    metric = [] if {"--metrics", "--protocol"} & set(words) else ["--metrics", "frechet-pixels"]
    assert cli.main(["evaluate", str(made(tmp_path)), "--data", str(real), *words, *metric, *out]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "numbers.json").exists()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (broken, "017.png of .* is no image to use: corrupt"),
        (mixed, "017.png of .* is 8x9, but others are 8x8"),
        (one, "frechet-pixels takes at least 2 real images to compare with, but the train split of .* has 1"),
        (grey_arrays, "frechet-pixels has 192 features of the samples, but 64 of the real ones: give both one size"),
    ],
)
def test_what_they_are_compared_with_must_be_whole_too(
    tmp_path: Path,
    real: Path,
    made: Callable[[Path], Path],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shortcut_models.data.images.MOST_LEFT_OUT", 0.5)  # Training may go on without a few.
    out = tmp_path / "numbers.json"
    words = ["--data", str(made(tmp_path)), "--metrics", "frechet-pixels", "--out", str(out)]
    assert cli.main(["evaluate", str(real), *words]) == 2
    assert re.search(message, capsys.readouterr().err.strip().splitlines()[-1])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # Nor is anything left over.


def test_a_copys_neighbour_is_a_training_image_only_where_others_are_held_out(tmp_path: Path, real: Path) -> None:
    network = Quick()
    pool = lambda _, images: {"pool": network.features(images[:, :4, :4], "adm")["pool"]}  # noqa: E731
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inception, "find_inception", lambda file, any_file: There())  # noqa: ARG005
        patched.setattr(InceptionFeatures, "__call__", pool)
        wish = Wish(metrics=("memorisation", "kid"))
        target = Npz(path=str(as_npz(tmp_path)))
        found = measure_images(target, choose_yardstick(Npz(path=str(real)), (8, 8, 3), wish, True))
    assert [name.split("-")[0] for name in found["images"]] == ["memorisation", "memorisation", "kid"]
    assert list(found["real"]) == ["kid-40"]  # Each would be its own neighbour.


@pytest.mark.parametrize("made", [grey_files, grey_arrays])
def test_grey_is_compared_with_grey_on_three_channels(
    tmp_path: Path, made: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Quick()

    def looked(_: Quick, images: np.ndarray, __: str) -> dict[str, np.ndarray]:
        return dict.fromkeys(("pool", "spatial"), images[:, 0, :3, 0].astype(np.float32))

    for place in ("features.inception", "statistics"):
        monkeypatch.setattr(f"shortcut_models.metrics.{place}.find_inception", lambda *_: network)
    monkeypatch.setattr(Quick, "features", looked)
    monkeypatch.setattr(stats_module, "ARRAYS", {"pool": ("mu", "sigma", 3)})
    path, file = str(made(tmp_path)), tmp_path / "stats.npz"
    assert cli.main(["stats", path, str(file), "--protocol", "adm"]) == 0
    np.savez(tmp_path / "rgb.npz", np.repeat(OTHERS[..., :1], 3, axis=-1))
    words = ["evaluate", path, "--metrics", "fid-adm", "--out", str(tmp_path / "numbers.json")]
    for compared in (["--stats", str(file)], ["--data", path], ["--data", str(tmp_path / "rgb.npz")]):
        assert cli.main([*words, *compared]) == 0
        found = json.loads((tmp_path / "numbers.json").read_text())["images"]["fid-adm-40"]
        assert found > 1 if "rgb" in compared[-1] else found == pytest.approx(0, abs=1e-6)
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert cli.main([*words, "--stats", str(tmp_path / "foreign.npz"), "--stats-protocol", "adm"]) == 2


def test_images_need_something_to_be_compared_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(as_npz(tmp_path))]) == 2
    assert "there is nothing to compare with: give --stats FILE or --data NAME_OR_PATH" in capsys.readouterr().err


def test_a_file_that_is_no_report_is_not_overwritten(
    tmp_path: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.json").write_text('{"dear": "friend"}')
    words = ["evaluate", str(as_npz(tmp_path)), "--data", str(real), "--out", str(tmp_path / "letter.json")]
    assert cli.main(words) == 2
    assert "is no report of ours: choose another --out" in capsys.readouterr().err
    assert (tmp_path / "letter.json").read_text() == '{"dear": "friend"}'


def test_a_target_is_a_model_or_images(trained: Path, tmp_path: Path) -> None:
    assert find_images(str(trained)) is None  # Although it may hold pictures.
    assert find_images("somebody/model") is None
    assert find_images(str(tmp_path / "missing")) is None
    assert isinstance(find_images("digits"), Digits)
    folder = as_folder(tmp_path)
    for name in (str(folder), f"folder:{folder}"):
        found = find_images(name)
        assert isinstance(found, Folder)
        assert isinstance(found, Data)
        assert found.path == str(folder)
    (tmp_path / "official.tmp").write_bytes(b"\x80\x04K\x01.")
    assert find_images(str(tmp_path / "official.tmp")) is None
