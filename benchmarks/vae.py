"""Seconds of the SD-VAE's encoder and decoder beside diffusers' AutoencoderKL in PyTorch, on the same CPU.

    python -m benchmarks.vae [--rounds 5] [--batch 4] [--size 256] [--what encode] [--ours-only]

Both have the same random weights and take turns in one process. On a busy machine the clock says little: pin it to one
core (`taskset -c 0 python -m benchmarks.vae`) and read the ratio of the processor's seconds, user and system, which
stand beside those of the clock. Needs the extra `bench`. Writes benchmarks/results/vae.json.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shortcut_models.codecs.sd_vae import SDVAE
from shortcut_models.codecs.sd_vae_network import Architecture, layout
from shortcut_models.files import write_json

OUT = Path(__file__).parent / "results" / "vae.json"
SIZES = Architecture()


def weights() -> dict[str, np.ndarray]:
    """Random weights in PyTorch's layout, of a size that keeps activations near 1."""
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.full(shape, 0.5, np.float32)
        return rng.standard_normal(shape, np.float32) * np.float32(np.prod(shape[1:]) ** -0.5)

    return {name: draw(shape) for name, shape in layout(SIZES).items()}


def ours(tensors: dict[str, np.ndarray], images: np.ndarray, latents: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Calls that encode and decode, and wait."""
    vae = SDVAE(params={k: v.transpose(2, 3, 1, 0) if v.ndim == 4 else v.T for k, v in tensors.items()})
    return {
        "encode": lambda: np.asarray(vae.encode(images)[0]),
        "decode": lambda: np.asarray(vae.decode(latents)),
    }


def peers(tensors: dict[str, np.ndarray], images: np.ndarray, latents: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The same by diffusers; channels-first arrays are made beforehand."""
    import torch  # pyrefly: ignore[missing-import]
    from diffusers import AutoencoderKL  # pyrefly: ignore[missing-import]

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    count = len(SIZES.widths)
    vae = AutoencoderKL(
        block_out_channels=SIZES.widths,
        layers_per_block=SIZES.layers,
        latent_channels=SIZES.channels,
        norm_num_groups=SIZES.groups,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
    ).eval()
    vae.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    x, z = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1))) for array in (images, latents))

    def run(call: Callable[[Any], Any], given: Any) -> np.ndarray:
        with torch.inference_mode():
            return np.moveaxis(call(given).numpy(), 1, -1)

    return {
        "encode": lambda: run(lambda x: vae.encode(x).latent_dist.mean, x),
        "decode": lambda: run(lambda z: vae.decode(z).sample, z),
    }


def clocks() -> np.ndarray:
    """Seconds of the clock, and of the processor for this process: user and system."""
    spent = os.times()
    return np.array([time.perf_counter(), spent.user, spent.system])


def measure(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of each in every round, by the three `clocks`; they take turns, in changing order."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            began = clocks()
            contestants[name]()
            seconds[name].append([round(float(spent), 3) for spent in clocks() - began])
    return seconds


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure, print a table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 5), ("batch", 4), ("size", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--what", nargs="+", default=("encode", "decode"), choices=("encode", "decode"))
    parser.add_argument("--ours-only", action="store_true", help="without PyTorch: no ratio")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    rng, side = np.random.default_rng(1), asked.size // SIZES.factor
    images = rng.uniform(-1, 1, (asked.batch, asked.size, asked.size, 3)).astype(np.float32)
    latents = rng.standard_normal((asked.batch, side, side, SIZES.channels), np.float32)
    made = {"ours": ours(weights(), images, latents)}
    if not asked.ours_only:
        made["diffusers"] = peers(weights(), images, latents)
    rows: list[dict[str, Any]] = []
    for what in asked.what:
        contestants = {name: calls[what] for name, calls in made.items()}
        answers = {name: call() for name, call in contestants.items()}  # Compiles, too.
        row: dict[str, Any] = {"what": what, "seconds": measure(contestants, asked.rounds)}
        for kind, of in (("clock", lambda s: s[0]), ("processor", lambda s: s[1] + s[2])):
            median = {name: statistics.median(map(of, times)) for name, times in row["seconds"].items()}
            row[kind] = median | ({"ratio": median["ours"] / median["diffusers"]} if "diffusers" in made else {})
        if "diffusers" in made:
            row["largest difference"] = float(np.abs(answers["ours"] - answers["diffusers"]).max())
        rows.append(row)
        print({key: value for key, value in row.items() if key != "seconds"}, flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.vae", *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "device": f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {name: _version(name) for name in ("jax", "torch", "diffusers")}
        | {"backend": jax.default_backend()},
        "batch": asked.batch,
        "size": asked.size,
        "rows": rows,
    }
    write_json(asked.out, report)


if __name__ == "__main__":
    main()
