"""Labels that samples are drawn with, and where they may go."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shortcut_models import InputError
from shortcut_models.outputs import check_new, choose_labels, default_labels
from shortcut_models.sampling import image_keys


def test_balanced_labels_go_through_the_classes_in_turn() -> None:
    assert choose_labels("balanced", 7, 3, 0).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("wish", ["balanced", "random", "none", "2,0"])
def test_labels_in_parts_are_those_of_the_whole(wish: str) -> None:
    whole = choose_labels(wish, 20, 3, 5)
    parts = [choose_labels(wish, count, 3, 5, first=first) for first, count in ((0, 7), (7, 1), (8, 12))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert {part.dtype for part in parts} == {np.dtype(np.int32)}
    assert choose_labels(wish, 2, 3, 5, first=2**32 - 3).shape == (2,)  # The last samples that a seed has.


def test_labels_of_data_have_their_proportions() -> None:
    assert choose_labels("data", 5, 3, 0, np.array([30, 0, 20])).tolist() == [0, 2, 0, 2, 0]


def test_named_labels_are_gone_through_in_turn() -> None:
    assert choose_labels("2,0", 5, 3, 0).tolist() == [2, 0, 2, 0, 2]
    assert choose_labels("2,0,1", 2, 3, 0).tolist() == [2, 0]
    assert choose_labels("1", 1, 3, 0).dtype == np.int32


def test_a_random_label_depends_on_seed_and_index_alone() -> None:
    many = choose_labels("random", 3000, 3, 5)
    assert set(many.tolist()) == {0, 1, 2}
    assert len(set(np.bincount(many))) > 1
    np.testing.assert_array_equal(choose_labels("random", 10, 3, 5), many[:10])
    assert many.tolist() != choose_labels("random", 3000, 3, 6).tolist()
    # Not of the key that the noise of the same sample is drawn from.
    of_noise = [int(jax.random.randint(key, (), 0, 1000)) for key in image_keys(5, jnp.arange(8))]
    assert not set(choose_labels("random", 8, 1000, 5).tolist()) & set(of_noise)
    for seed in (-1, 2**32, 2**64):
        with pytest.raises(InputError, match=f"seed is {seed}, but must be a whole number between 0 and 4294967295"):
            choose_labels("random", 2, 3, seed)
    # Five standard deviations of a fair draw.
    assert np.abs(np.bincount(many, minlength=3) - 1000).max() < 5 * (3000 * 2 / 9) ** 0.5


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("0,1,2,0", "--labels names 4 labels, but the model knows 3 classes"),
        ("3", "label 3 is unknown: labels go from 0 to 2, and none asks for no class"),
        ("-1", "label -1 is unknown: labels go from 0 to 2"),
        ("", "--labels names an empty one, which is no class: use balanced, random, data, none, or classes such as 0"),
        ("0,,1", "names an empty one, which is no class"),
        ("Balanced", "names Balanced, which is no class: use balanced, random, data, none, or classes such as 0,1,2"),
        ("1,cots", "names cots, which is no class: did you mean cats?"),
    ],
)
def test_labels_that_cannot_be_are_refused(wish: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        choose_labels(wish, 4, 3, 0, class_names=lambda: ("ants", "cats", "2"))


def test_classes_go_by_number_or_else_by_name() -> None:
    assert choose_labels("cats,2,0", 4, 3, 0, class_names=lambda: ("2", "0", "cats")).tolist() == [2, 2, 0, 2]
    # Numbers alone need no names, for which the data would have to be there.
    assert choose_labels("1,0", 2, 3, 0, class_names=lambda: pytest.fail("names were read")).tolist() == [1, 0]


def test_no_label_is_the_null_label_which_is_the_default_where_none_was_trained() -> None:
    assert choose_labels("none", 3, 4, 0).tolist() == [4, 4, 4]
    assert choose_labels("none", 3, 4, 0).dtype == np.int32
    assert default_labels(unconditional=True) == "none"
    assert default_labels(unconditional=False) == "balanced"


def test_only_a_new_name_or_an_empty_folder_is_free(tmp_path: Path) -> None:
    check_new(tmp_path / "new.png")
    check_new(tmp_path)
    (tmp_path / "folder.png").mkdir()
    for taken in (tmp_path, tmp_path / "folder.png"):
        with pytest.raises(InputError, match="exists already: choose another --out, or remove it first"):
            check_new(taken)
