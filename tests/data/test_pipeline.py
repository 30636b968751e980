"""Batch k is a function of (seed, k), whoever reads it."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, sharding
from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.digits import Digits
from shortcut_models.data.pipeline import batch_dataset, batches, flips, to_network, to_uint8


class Numbered:
    """A source of one-pixel images whose labels are their indices."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert 0 <= index < self.count
        return {"image": np.full((1, 1, 1), index % 256, np.uint8), "label": index}


def labels(found: Iterator[Any], count: int) -> list[list[int]]:
    return [batch["label"].tolist() for batch in itertools.islice(found, count)]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_batch_is_the_same_by_index_and_by_iteration_from_anywhere(threads: int) -> None:
    dataset = batch_dataset(Numbered(10), 4, seed=5)
    expected = [dataset[k]["label"].tolist() for k in range(9)]
    assert len({tuple(batch) for batch in expected}) == 9
    assert labels(batches(dataset, 0, threads), 9) == expected
    assert labels(batches(dataset, 6, threads), 3) == expected[6:]
    # Another dataset of the same seed, as in a process that resumes, and one of another seed.
    assert labels(batches(batch_dataset(Numbered(10), 4, seed=5), 6, threads), 3) == expected[6:]
    assert labels(batches(batch_dataset(Numbered(10), 4, seed=6), 0, threads), 9) != expected


def test_every_epoch_visits_each_image_once_although_batches_cross_epochs() -> None:
    # Five batches of four are two epochs of ten: the third batch lies in both.
    dataset = batch_dataset(Numbered(10), 4, seed=1)
    drawn = np.concatenate([dataset[k]["label"] for k in range(10)]).reshape(4, 10)
    for epoch in drawn:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in drawn}) == 4  # Each in an order of its own.


def test_a_batch_may_be_larger_than_the_source() -> None:
    drawn = batch_dataset(Numbered(3), 7, seed=0)[0]["label"]
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]


def test_an_image_keeps_its_label_and_its_bytes() -> None:
    batch = batch_dataset(Numbered(200), 64, seed=2)[3]
    assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(batch["image"].reshape(-1), batch["label"])


def test_the_order_is_the_one_of_every_run_before() -> None:
    # A run that goes on under another version must read what it would have read.
    assert batch_dataset(Numbered(1797), 8, seed=0)[100]["label"].tolist() == [
        652,
        332,
        1140,
        755,
        1331,
        1088,
        1527,
        1217,
    ]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_would_be_cut_to_32_bits_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed is {seed}, but must lie between 0 and 4294967295"):
        batch_dataset(Numbered(3), 2, seed)


class Both(Numbered):
    """The same with a mirror, whose images are 100 brighter."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.mirror = ArraySource({"image": np.arange(100, 100 + count, dtype=np.uint8), "label": np.arange(count)})

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"image": np.uint8(index)}


def test_of_a_source_with_a_mirror_half_is_flipped_by_seed_and_batch_alone() -> None:
    drawn = batch_dataset(Both(50), 40, seed=7)
    for k in (0, 3):
        batch, order = drawn[k], batch_dataset(Numbered(50), 40, seed=7)[k]["label"]
        np.testing.assert_array_equal(batch["label"], order)
        np.testing.assert_array_equal(batch["image"], order + 100 * flips(7, k, 40))
        rows = np.arange(13, 29)
        part = batch_dataset(Both(50), 40, seed=7, rows=rows)[k]
        np.testing.assert_array_equal(part["image"], batch["image"][rows])
    # Each of one row is either; together they are of the same length as the draws.
    ones = batch_dataset(Both(50), 40, seed=7, rows=np.arange(1))
    assert {int(ones[k]["image"][0] >= 100) for k in range(20)} == {0, 1}


def test_flips_are_fair_and_differ_between_seeds_batches_and_rows() -> None:
    drawn = np.stack([flips(seed, k, 100) for seed in range(5) for k in range(40)])
    assert abs(drawn.mean() - 0.5) < 0.02
    assert len({row.tobytes() for row in drawn}) == 200
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.2
    np.testing.assert_array_equal(flips(3, 2, 100)[:10], flips(3, 2, 10))


def test_the_rows_of_two_processes_make_the_batch_of_one() -> None:
    whole = batch_dataset(Numbered(30), 8, seed=3)[5]
    halves = [batch_dataset(Numbered(30), 8, seed=3, rows=rows)[5] for rows in (np.arange(4), np.arange(4, 8))]
    for name in ("image", "label"):
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole[name])


def test_one_process_reads_all_rows_and_spreads_them_in_order() -> None:
    mesh = sharding.make_mesh()
    np.testing.assert_array_equal(sharding.local_rows(mesh, 16), np.arange(16))
    placed = sharding.place_batch(mesh, {"label": np.arange(16)})["label"]
    np.testing.assert_array_equal(placed, np.arange(16))
    assert sorted(int(shard.data[0]) for shard in placed.addressable_shards) == list(range(0, 16, 2))


def test_every_grey_level_survives_the_way_to_the_network_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    inside = to_network(levels)
    assert inside.dtype == np.float32
    assert (inside.min(), inside.max()) == (-1, 1)
    back = to_uint8(inside)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, levels)


def test_samples_are_rounded_to_the_nearest_level_and_clipped() -> None:
    samples = np.array([-7.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1.0, 3.0])
    assert to_uint8(samples).tolist() == [0, 0, 0, 1, 255, 255]


def test_the_digits_are_all_there_in_their_seventeen_levels() -> None:
    data, source = Digits(), Digits().open()
    assert len(source) == 1797
    example = source[0]
    assert example["image"].shape == data.shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert example["label"] == 0
    assert isinstance(example["label"], int)
    images, labels = source.arrays["image"], source.arrays["label"]
    assert np.unique(images).tolist() == np.round(np.arange(17) * 255 / 16).tolist()
    # The counts of the UCI test set.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (data.num_classes, data.class_names[7], data.splits, data.held_out) == (10, "7", ("train",), None)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    with pytest.raises(InputError, match="split 'test' is unknown: digits has train"):
        data.open("test")
