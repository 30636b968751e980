"""Samples as other people's evaluators take them: an .npz with arr_0, the images, and arr_1, their labels.

They are written as they are drawn, so that memory does not grow with their number; killed, it goes on, and ends with
the same bytes.
"""

import json
import os
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from shortcut_models import processes
from shortcut_models.errors import InputError
from shortcut_models.files import whole_file, write_json
from shortcut_models.metrics.base import to_bytes
from shortcut_models.model import Model

CHUNK = 256
"""Samples drawn at once on each of the devices that share them; what a kill loses."""


def write_arrays(
    out: Path,
    model: Model,
    labels: Int[np.ndarray, " count"],
    steps: int,
    guidance: float,
    seed: int,
) -> None:
    """Draw a sample for each label into `out`: arr_0 uint8 (count, H, W, 3), rounded to nearest, and arr_1 int64.

    Until it is whole, what is drawn lies in a folder beside. Raises InputError for samples that are no images.
    """
    if model.data.view != "images":
        raise InputError("--arrays adm is for images, but this model draws points: leave --arrays out.")
    progress = out.with_name(f".{out.name}-progress")
    refusal = lambda who: f"{out} is being drawn by {who}: wait for it, or choose another --out."  # noqa: E731
    with processes.alone(progress.with_name(f"{progress.name}.lock"), refusal):
        drawn = progress / "images"
        key = {
            "model": model.fingerprint(),
            "settings": [steps, guidance, seed],
            "labels": sha256(labels.tobytes()).hexdigest(),
        }
        first, shape = processes.is_first(), (0,)
        done = _there(progress, key) if first else 0
        done = int(processes.from_first(np.int32(done)))
        turns = {"total": -(-len(labels) // CHUNK), "initial": done // CHUNK}
        for start in tqdm(range(done, len(labels), CHUNK), unit="batch", disable=not first, **turns):
            rows = min(CHUNK, len(labels) - start)
            own, kept = processes.share(rows)
            part = labels[start + own.start : start + own.stop]
            samples = to_bytes(model.decode(model.sample(part, steps, guidance, seed, first=start + own.start)))
            samples = processes.join(samples[:kept], rows)
            if first:
                with drawn.open("r+b") as file:
                    file.seek(start * samples[0].nbytes)
                    file.write(np.ascontiguousarray(samples).tobytes())
                    file.truncate()
                    os.fsync(file.fileno())  # Or a crash of the machine could leave a record of what is not there.
                shape = samples.shape[1:]
                write_json(progress / "done.json", {"key": key, "count": start + rows, "shape": shape})
        if first:
            _pack(out, progress, labels)
            shutil.rmtree(progress)


def _there(progress: Path, key: dict[str, Any]) -> int:
    """How many samples are drawn already, whole chunks; what another drawing left is removed."""
    try:
        known = json.loads((progress / "done.json").read_text())
        size = int(np.prod(known["shape"]))
        if known["key"] == key and (progress / "images").stat().st_size >= known["count"] * size:
            return known["count"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    shutil.rmtree(progress, ignore_errors=True)
    progress.mkdir(parents=True)
    (progress / "images").touch()
    return 0


def _pack(out: Path, progress: Path, labels: np.ndarray) -> None:
    """Make the .npz of what was drawn, piece by piece, as NumPy would write it."""
    shape = (len(labels), *json.loads((progress / "done.json").read_text())["shape"])
    with whole_file(out) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        # A member's time is a fixed one, so that the same samples are the same bytes.
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            with (progress / "images").open("rb") as file:
                shutil.copyfileobj(file, member, 2**20)
        with archive.open(zipfile.ZipInfo("arr_1.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asarray(labels, np.int64))
