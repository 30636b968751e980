"""`shortcut prepare --check`: what is there, and what would become of it."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from shortcut_models.data.images import Images, LeftOut, Records
from shortcut_models.data.latents import Latents
from shortcut_models.prepare import bare_classes, files_of, read

BLOCK = 1024
"""Images in hand at once."""


def check(source: Images | Latents | str, split: str = "train", threads: int | None = None) -> dict[str, Any]:
    """Read every image and write nothing: counts, sizes, classes, and what would be left out and why."""
    data = files_of(source, None)
    records = data.records(split)
    left_out, notes, counts = list(records.left_out), Counter[str](), Counter[int]()
    sizes: list[tuple[int, int]] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        # Some at a time, because every one that is asked for takes memory until it is looked at.
        blocks = (range(first, min(first + BLOCK, len(records))) for first in range(0, len(records), BLOCK))
        found = (item for block in blocks for item in pool.map(lambda index: _measure(data, records, index), block))
        for item in tqdm(found, total=len(records), unit="image", desc="checking"):
            if isinstance(item, LeftOut):
                left_out.append(item)
            else:
                sizes.append(item[0])
                notes.update(item[1])
                counts[item[2]] += 1
    heights, widths = np.array(sizes or [(0, 0)]).T
    class_names = list(records.class_names) if data.labels else []
    class_counts = [counts[label] for label in range(max(len(class_names), 1))]
    return {
        "count": len(sizes),
        "class_names": class_names,
        "class_counts": class_counts,
        "heights": [int(np.quantile(heights, q, method="nearest")) for q in (0, 0.5, 1)],
        "widths": [int(np.quantile(widths, q, method="nearest")) for q in (0, 0.5, 1)],
        "left_out": [bad._asdict() for bad in left_out],
        "left_out_by_reason": dict(sorted(Counter(bad.reason for bad in left_out).items())),
        "notes": dict(sorted(notes.items())),
        "warnings": [*records.warnings, *bare_classes(records, class_names, class_counts)],
    }


def _measure(
    data: Images | Latents, records: Records, index: int
) -> tuple[tuple[int, int], tuple[str, ...], int] | LeftOut:
    found = read(data, records, index)
    if isinstance(found, LeftOut):
        return found
    height, width = found[0].image.shape[:2]
    return (height, width), found[0].notes, found[1]
