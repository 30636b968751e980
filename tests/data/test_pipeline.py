"""Batch k is a function of (seed, k), whoever reads it."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from shortcut_models import InputError, sharding
from shortcut_models.data import Digits, open_source
from shortcut_models.data.pipeline import batch_dataset, batches, to_network, to_uint8


class Numbered:
    """A source of one-pixel images whose labels are their indices."""

    image_shape = (1, 1, 1)

    def __init__(self, count: int) -> None:
        self.num_classes = self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert 0 <= index < self.count
        return {"image": np.full((1, 1, 1), index, np.uint8), "label": index}


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


def test_an_image_keeps_its_label() -> None:
    batch = batch_dataset(Numbered(200), 64, seed=2)[3]
    np.testing.assert_array_equal(to_uint8(batch["x1"]).reshape(-1), batch["label"])


def test_the_rows_of_two_processes_make_the_batch_of_one() -> None:
    whole = batch_dataset(Numbered(30), 8, seed=3)[5]
    halves = [batch_dataset(Numbered(30), 8, seed=3, rows=rows)[5] for rows in (np.arange(4), np.arange(4, 8))]
    for name in ("x1", "label"):
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
    source = Digits()
    assert len(source) == 1797
    example = source[0]
    assert example["image"].shape == source.image_shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert example["label"] == 0
    assert np.unique(source.images).tolist() == np.round(np.arange(17) * 255 / 16).tolist()
    # The counts of the UCI test set.
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_an_unknown_dataset_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="dataset 'mnist' cannot be read by this version: the datasets are digits"):
        open_source("mnist")
