"""Draw docs/glyphs.png, the first 128 glyphs, and count images per second: `python benchmarks/draw_glyphs.py`."""

import time
from pathlib import Path

import numpy as np

from shortcut_models.data.base import take
from shortcut_models.data.glyphs import Glyphs
from shortcut_models.views.images import draw_grid

if __name__ == "__main__":
    started = time.perf_counter()
    source = Glyphs().open()
    print(f"{time.perf_counter() - started:.2f} s to render the fonts")
    draw_grid(Path("docs/glyphs.png"), take(source, np.arange(128))["image"], columns=16)
    started, busy = time.perf_counter(), time.process_time()
    for index in range(20_000):
        source[index]
    print(f"{20_000 / (time.process_time() - busy):.0f} images per second of one core")
    print(f"{20_000 / (time.perf_counter() - started):.0f} images per second here and now")
