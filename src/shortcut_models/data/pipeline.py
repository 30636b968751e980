"""From a source to batches: batch k is a pure function of (seed, k), so resuming needs one integer.

Grain shuffles every epoch anew and lets batches cross epochs, so no image is dropped. The order is
drawn for the global batch, of which each process then reads its own rows: the data do not change
with the number of processes or threads.
"""

import itertools
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int, UInt8

from shortcut_models.data import Source

Batch = dict[str, np.ndarray]


def to_network(images: UInt8[np.ndarray, "batch height width channels"]) -> np.ndarray:
    """uint8 0..255 to float32 -1..1, the network's range."""
    return images.astype(np.float32) / 127.5 - 1


def to_uint8(samples: np.ndarray) -> np.ndarray:
    """The network's range back to uint8, rounded to nearest and clipped."""
    return np.clip(np.round((np.asarray(samples) + 1) * 127.5), 0, 255).astype(np.uint8)


def batch_dataset(
    source: Source, batch_size: int, seed: int, rows: Int[np.ndarray, " local"] | None = None
) -> grain.MapDataset[Batch]:
    """An endless dataset whose element k is batch k: {"x1": float32 (rows, H, W, C), "label": int32}.

    A source of pairs adds the noise "x0" of each image.
    `batch_size` counts the global batch; `rows` are the positions in it to read (default: all).
    """
    rows = np.arange(batch_size) if rows is None else rows

    def read(indices: np.ndarray) -> Batch:
        examples = [source[int(i)] for i in indices[rows]]
        images = np.stack([example["image"] for example in examples])
        x1 = to_network(images) if images.dtype == np.uint8 else images
        batch = {"x1": x1, "label": np.array([e["label"] for e in examples], np.int32)}
        return batch | ({"x0": np.stack([e["noise"] for e in examples])} if "noise" in examples[0] else {})

    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    return order.batch(batch_size, drop_remainder=True).map(read)


def batches(dataset: grain.MapDataset[Batch], start: int, threads: int) -> Iterator[Batch]:
    """Batches start, start + 1, ... read ahead by `threads` threads; 0 reads in the caller's thread."""
    if threads == 0:
        return map(dataset.__getitem__, itertools.count(start))  # pyrefly: ignore[bad-return]
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    iterator = iter(dataset.to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    return iterator
