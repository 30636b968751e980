"""From a source to batches: batch k is a pure function of (seed, k), so resuming needs one integer.

Grain shuffles every epoch differently and lets batches cross epochs, so no image is dropped. The order is
drawn for the global batch, of which each process then reads its own rows: the data do not change
with the number of processes or threads. Images stay uint8: they are scaled on the device.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Protocol, cast

import grain
import numpy as np
from jaxtyping import Bool, Int

from shortcut_models.data.base import Batch, Source, take
from shortcut_models.data.pixels import to_network, to_uint8
from shortcut_models.errors import InputError

_FLIPS = 0x666C697073  # "flips": draws of their own, whatever else the seed decides.


class BatchDataset(Protocol):
    """What is used of Grain's dataset: element k is batch k."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Batch: ...

    def to_iter_dataset(self, read_options: grain.ReadOptions, /) -> Any:
        """An iterable that reads ahead."""
        ...


def batch_dataset(
    source: Source, batch_size: int, seed: int, rows: Int[np.ndarray, " local"] | None = None
) -> BatchDataset:
    """An endless dataset whose element k is batch k: the source's examples, stacked, with "label" as int32.

    `batch_size` counts the global batch; `rows` are the positions in it to read (default: all). Of a
    source with a mirror, each example is drawn as it is or mirrored with equal chances. Raises
    InputError for a seed that Grain would cut to 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}, but must lie between 0 and 4294967295.")
    if getattr(source, "in_order", False):
        raise InputError("parquet files are read in order, which is no way to train: `shortcut prepare` them first.")
    rows = np.arange(batch_size) if rows is None else rows
    mirror: Source | None = getattr(source, "mirror", None)

    def read(number: int, indices: np.ndarray) -> Batch:
        if mirror is None:
            return take(source, indices[rows])
        return _choose(source, mirror, indices[rows], flips(seed, number, batch_size)[rows])

    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    # Grain allows for elements that a filter took out; there is no filter here.
    return cast(BatchDataset, order.batch(batch_size, drop_remainder=True).map_with_index(read))


def flips(seed: int, number: int, batch_size: int) -> Bool[np.ndarray, " batch_size"]:
    """Which examples of batch `number` are mirrored: a pure function of (seed, number)."""
    words = np.random.Philox(key=_FLIPS << 64 | seed, counter=number << 64).random_raw(-(-batch_size // 64))
    return np.unpackbits(words.astype("<u8").view(np.uint8))[:batch_size].astype(bool)


def _choose(source: Source, mirror: Source, indices: np.ndarray, flipped: np.ndarray) -> Batch:
    """Each example from the source, or from its mirror where `flipped`; none is read twice."""
    if flipped.all() or not flipped.any():
        return take(mirror if flipped.any() else source, indices)
    plain, turned = take(source, indices[~flipped]), take(mirror, indices[flipped])
    batch = {name: np.empty((len(indices), *array.shape[1:]), array.dtype) for name, array in plain.items()}
    for name, array in batch.items():
        array[~flipped], array[flipped] = plain[name], turned[name]
    return batch


def batches(dataset: BatchDataset, start: int, threads: int) -> Iterator[Batch]:
    """Batches start, start + 1, ... read ahead by `threads` threads; 0 reads in the caller's thread."""
    if threads == 0:
        return map(dataset.__getitem__, itertools.count(start))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    iterator = iter(dataset.to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    return iterator


__all__ = ["Batch", "batch_dataset", "batches", "flips", "to_network", "to_uint8"]
