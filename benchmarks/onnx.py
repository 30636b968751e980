"""Processor time of exported samplers in onnxruntime beside ours in JAX, on a CPU; and what exporting takes.

    python -m benchmarks.onnx [NETWORK ...] [--rounds 5]

Networks of random weights, drawn in one step; both take turns in one process. Processor time, of all threads, is what
other programs on the machine change least. Writes benchmarks/results/onnx.json, and the table of docs/export.md.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime

from benchmarks.speed import page
from benchmarks.speed.race import race, ratio
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.files import write_json
from shortcut_models.interop.onnx_file import export_onnx
from shortcut_models.model import Model
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.presets import get_preset
from shortcut_models.provenance import provenance

OUT = Path(__file__).parent / "results" / "onnx.json"
BATCHES = {"digits": 64, "images32": 8, "imagenet256-b": 1}
"""Presets whose networks are raced, and how many samples a call draws."""


def model_of(preset: str) -> Model:
    """The preset's network, as it is fastest on a CPU: unrolled, in float32; of random weights."""
    network = replace(get_preset(preset).model.exact(), scan=False)  # pyrefly: ignore[unexpected-keyword]
    rng, shapes = np.random.default_rng(0), jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32) * np.float32(0.02), shapes)
    data = Unavailable(x_shape=network.shape, classes=network.num_classes)
    return Model(network, params, Shortcut(), data, step=0, weights="raw")


def measure(preset: str, batch: int, rounds: int) -> dict[str, Any]:
    """A row of the table."""
    model = model_of(preset)
    noise, labels = model.noise(0, 0, batch), np.arange(batch) % model.num_classes
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.onnx"
        began = time.process_time()
        difference = export_onnx(model, file, steps=1)
        exporting, size = time.process_time() - began, sum(path.stat().st_size for path in file.parent.iterdir())
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # Waiting would count as work.
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {"noise": noise, "label": labels}
    contestants = {
        "onnxruntime": partial(timed, lambda: session.run(None, feed)),
        "ours": partial(timed, lambda: model.sample(labels, 1, noise=noise)),
    }
    times = race(contestants, rounds)
    return {
        "network": preset,
        "samples": batch,
        "weights, MB": sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) / 1e6,
        "file, MB": size / 1e6,
        "export and check, s": exporting,
        "largest difference": difference,
        "onnxruntime, s": min(times["onnxruntime"]),
        "ours, s": min(times["ours"]),
        "onnxruntime / ours": ratio(times["onnxruntime"], times["ours"]),
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds of processor time that a call takes."""
    began = time.process_time()
    call()
    return time.process_time() - began


def main() -> None:
    """Measure, and write file and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[[], *BATCHES], help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    report = {"rows": rows, "about": {"onnxruntime": version("onnxruntime")}, "busy": os.getloadavg()[0] > 0.7}
    report |= provenance(" ".join(["python -m benchmarks.onnx", *sys.argv[1:]]))
    for preset in given.networks or BATCHES:
        rows.append(measure(preset, BATCHES[preset], given.rounds))
        print(rows[-1], flush=True)
        write_json(OUT, report)
    page.write(Path("docs/export.md"), OUT.parent)


if __name__ == "__main__":
    main()
