"""The recipe for emoji: classes from the package's own categories, one folder each."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from examples import emoji, emoji_picture
from shortcut_models.data import choose


def test_pictures_are_sorted_by_category_with_their_skins(tmp_path: Path) -> None:
    package = tmp_path / "package"
    drawn = package / "img/twitter/64"
    drawn.mkdir(parents=True)

    def picture(name: str, there: bool = True) -> dict[str, object]:
        if there:
            (drawn / name).write_bytes(name.encode())
        return {"image": name, "has_img_twitter": there}

    waving = picture("wave.png") | {"skin_variations": {"1F3FB": picture("pale.png"), "1F3FF": picture("b.png", False)}}
    table = [
        picture("cat.png") | {"category": "Animals & Nature"},
        waving | {"category": "People & Body"},
        picture("none.png", there=False) | {"category": "Flags"},
    ]
    (package / "emoji.json").write_text(json.dumps(table))
    assert emoji.sort(package, tmp_path / "out") == 3
    found = {str(file.relative_to(tmp_path / "out")): file.read_bytes() for file in tmp_path.glob("out/*/*")}
    assert found == {
        "animals-nature/cat.png": b"cat.png",
        "people-body/wave.png": b"wave.png",
        "people-body/pale.png": b"pale.png",
    }
    assert choose(str(tmp_path / "out")).class_names == ("animals-nature", "people-body")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    words = [sys.executable, emoji.__file__, str(tmp_path), "package"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path} is there already: remove it, or name another folder.\n")
    assert not list(tmp_path.iterdir())


def test_the_nearest_picture_is_that_with_the_least_difference() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    noise = rng.integers(-20, 21, (3, 4, 4, 3))
    samples = np.clip(pictures[[4, 0, 2]] + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(emoji_picture.nearest(samples, pictures), pictures[[4, 0, 2]])


def test_the_picture_has_a_row_for_each_class(tmp_path: Path) -> None:
    samples = {heading: np.zeros((2, emoji_picture.EACH, 4, 4, 3), np.uint8) for heading in ("1", "nearest")}
    emoji_picture.draw(samples, ("cats", "dogs"), tmp_path / "emoji.png")
    assert (tmp_path / "emoji.png").read_bytes().startswith(b"\x89PNG")
