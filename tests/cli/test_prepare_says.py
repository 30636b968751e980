"""What `shortcut prepare` prints: fates, classes, and what it did to images."""

from pathlib import Path

import pytest
from PIL import Image

from shortcut_models import cli


def test_a_check_names_the_first_that_are_left_out_and_counts_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    for number in range(23):
        (tmp_path / "data" / f"{number:02}.png").touch()
    assert cli.main(["prepare", "--check", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("0 usable images\n")
    assert "23  left out: empty" in said
    assert ("19.png: zero bytes" in said, "20.png" in said) == (True, False)
    assert "and 3 more, which the manifest will list" in said
    assert "would not accept this: 23 of 23 are left out, more than the share 0.01" in said


def test_what_was_done_to_images_is_told_with_its_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for number, mode in enumerate(("RGB", "RGBA", "RGBA")):
        Image.new(mode, (8, 8)).save(tmp_path / "data" / f"{number}.png")
    assert cli.main(["prepare", str(tmp_path / "data"), str(tmp_path / "out"), "--size", "8"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert told == ["note: alpha_dropped, 2 images"]


def test_a_check_lists_the_first_classes_and_counts_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(23):
        for copy in range(1 + (number == 21)):
            file = tmp_path / "data" / f"c{number:02}" / f"{copy}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(file)
    assert cli.main(["prepare", "--check", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == ["         1  c00", "         1  c01"]
    assert said[20:22] == ["         1  c19", "            and 3 more classes, of 1 to 2 images each"]
