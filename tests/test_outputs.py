"""Labels in, image files out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError
from shortcut_models.outputs import check_new, choose_labels, write_images


def some_images(count: int, side: int = 8, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def test_balanced_labels_go_through_the_classes_in_turn() -> None:
    assert choose_labels("balanced", 7, 3, 0).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_named_labels_are_gone_through_in_turn() -> None:
    assert choose_labels("2,0", 5, 3, 0).tolist() == [2, 0, 2, 0, 2]
    assert choose_labels("2,0,1", 2, 3, 0).tolist() == [2, 0]
    assert choose_labels("1", 1, 3, 0).dtype == np.int32


def test_a_random_label_depends_on_seed_and_index_alone() -> None:
    many = choose_labels("random", 3000, 3, 5)
    np.testing.assert_array_equal(choose_labels("random", 10, 3, 5), many[:10])
    assert many.tolist() != choose_labels("random", 3000, 3, 6).tolist()
    # Five standard deviations of a fair draw.
    assert np.abs(np.bincount(many, minlength=3) - 1000).max() < 5 * (3000 * 2 / 9) ** 0.5


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("0,1,2,0", "--labels names 4 labels, but the model knows 3 classes"),
        ("3", "label 3 is unknown: labels go from 0 to 2"),
        ("-1", "label -1 is unknown: labels go from 0 to 2"),
        ("", "--labels  must be balanced, random, or classes such as 0,1,2"),
        ("0,,1", "must be balanced, random, or classes"),
        ("Balanced", "must be balanced, random, or classes"),
    ],
)
def test_labels_that_cannot_be_are_refused(wish: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        choose_labels(wish, 4, 3, 0)


@pytest.mark.parametrize("name", ["a.png", "a.npz", "folder", "deep/er/a.png", "deep/er/a.npz", "deep/er/folder"])
def test_what_is_written_is_all_there_and_nothing_else(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    check_new(out)
    write_images(out, some_images(3), np.arange(3, dtype=np.int32))
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    if out.suffix == ".npz":
        with np.load(out) as found:
            np.testing.assert_array_equal(found["images"], some_images(3))
            assert found["labels"].tolist() == [0, 1, 2]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    out = tmp_path / "images"
    out.mkdir()
    write_images(out, some_images(2), np.array([7, 8], np.int32))
    assert sorted(path.name for path in out.iterdir()) == ["00000-7.png", "00001-8.png"]
    for i, path in enumerate(sorted(out.iterdir())):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), some_images(2)[i, :, :, 0])


@pytest.mark.parametrize("name", ["a.png", "a.npz", "folder"])
def test_what_exists_is_left_alone(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    if out.suffix:
        out.write_bytes(b"precious")
    else:
        out.mkdir()
        (out / "precious").write_bytes(b"precious")
    for refuse in (check_new, lambda path: write_images(path, some_images(1), np.zeros(1, np.int32))):
        with pytest.raises(InputError, match="exists already: choose another --out, or remove it first"):
            refuse(out)
    assert (out if out.suffix else out / "precious").read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_ending_that_we_do_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in .png or .npz, or be a folder"):
        check_new(tmp_path / "a.jpg")
