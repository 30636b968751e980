"""Labels in the proportions of a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortcut_models import cli
from shortcut_models.data import choose
from shortcut_models.data.glyphs import Glyphs
from shortcut_models.data.proportions import class_counts, proportional_labels


@pytest.mark.parametrize(
    ("counts", "count", "expected"),
    [
        ([6, 3, 1], 10, [6, 3, 1]),
        ([6, 3, 1], 5, [3, 2, 0]),  # 3, 1.5 and .5: of two remainders alike the lower class has its way.
        ([1, 1, 1], 4, [2, 1, 1]),
        ([2271, 0, 515], 7, [6, 0, 1]),
        ([5, 2], 1, [1, 0]),
    ],
)
def test_counts_are_exact_by_the_largest_remainder(counts: list[int], count: int, expected: list[int]) -> None:
    labels = proportional_labels(np.array(counts), count)
    assert np.bincount(labels, minlength=len(counts)).tolist() == expected
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, proportional_labels(np.array(counts), count))


def test_no_part_of_the_labels_is_of_another_mixture() -> None:
    counts = np.array([2271, 900, 400, 215])
    labels = proportional_labels(counts, 10_000)
    for start in (0, 2500, 5000, 7500):
        found = np.bincount(labels[start : start + 2500], minlength=4)
        np.testing.assert_allclose(found, counts / counts.sum() * 2500, atol=2)


def test_classes_are_counted_without_decoding_an_image(tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "prepared"
    for name, count in (("cats", 3), ("dogs", 1)):
        (pictures / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4)).save(pictures / name / f"{number}.png")
    (pictures / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert class_counts(choose(str(pictures))).tolist() == [4, 1]
    assert cli.main(["prepare", str(pictures), str(out), "--size", "4", "--most-left-out", "0.5"]) == 0
    assert class_counts(choose(str(out))).tolist() == [3, 1]
    digits = class_counts(choose("digits"))
    assert digits.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert class_counts(Glyphs()).tolist() == [1] * 62
