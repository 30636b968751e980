"""What reading data costs, each as a ratio in one run, and one full-size step at 256x256.

    python -m benchmarks.data [folder latents index kills step-latents step-pixels]

Makes its own data in a temporary folder. Writes benchmarks/results/data.json, a part for each that was asked for;
parts of earlier runs stay.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models import startup
from shortcut_models.files import write_json
from shortcut_models.provenance import provenance

OUT = Path(__file__).parent / "results" / "data.json"
ROUNDS = 7


def folder(place: Path) -> dict[str, Any]:
    """Images a second: our pipeline with two threads, and a bare loop on two that decodes, crops and resizes."""
    from PIL import Image

    from shortcut_models.data.folder import Folder
    from shortcut_models.data.pipeline import batch_dataset, batches

    rng, count, size = np.random.default_rng(0), 128, 32
    for number in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(image, int) + rng.integers(-20, 21, (375, 500, 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(place / f"{number:04}.jpg", quality=95)
    files = sorted(place.glob("*.jpg"))

    def bare(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            pixels = image.convert("RGB")
        side = min(pixels.size)
        left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
        square = pixels.crop((left, top, left + side, top + side))
        return np.asarray(square.resize((256, 256), Image.Resampling.BILINEAR))

    ours = batches(batch_dataset(Folder(path=str(place), size=256).open(), size, 0), 0, threads=2)
    pool, endless = ThreadPoolExecutor(2), cycle(files)

    def loop() -> None:
        np.stack(list(pool.map(bare, islice(endless, size))))

    return _race({"pipeline": lambda: next(ours), "bare loop": loop}, size, 12)


def latents(place: Path) -> dict[str, Any]:
    """Rows a second of processor time, in random batches of 256: prepared latents, and a bare mapped read of them."""
    from shortcut_models.data.prepared import ShardSource

    shape, each, shards, size = (32, 32, 4), 4096, 5, 256
    noise = np.random.default_rng(0).standard_normal((each, *shape), np.float32).astype(np.float16)
    for number in range(shards):
        for name in ("mean", "deviation"):
            np.save(place / f"{name}-{number:05}.npy", noise)
        np.save(place / f"labels-{number:05}.npy", np.zeros(each, np.int32))
        for name in ("mean", "deviation"):
            with (place / f"{name}.npy").open("ab") as file:
                file.write(noise.tobytes())
    about = {"kind": "latents", "num_classes": 1000, "shape": list(shape), "shards": [{"count": each}] * shards}
    source = ShardSource(place, about, labelled=True)
    whole = [
        np.memmap(place / f"{n}.npy", np.float16, "r", shape=(each * shards, *shape)) for n in ("mean", "deviation")
    ]
    for array in whole:  # Every page is in memory, of both.
        array.max()
    source.batch(np.arange(each * shards))
    chosen = [np.random.default_rng(k).integers(0, each * shards, size) for k in range(40)]
    mine, bare = cycle(chosen), cycle(chosen)

    def read() -> None:
        rows = next(bare)
        for array in whole:
            np.asarray(array[rows])

    # One thread does it all, so that its processor time tells the same on a busy machine.
    return _race({"prepared": lambda: source.batch(next(mine)), "bare read": read}, size, 40, time.process_time)


def index(place: Path) -> dict[str, Any]:
    """Seconds and memory of opening 1.28 million records by a saved index, in a process of its own."""
    from shortcut_models.data.tfrecord import masked_crc

    shards, each, name = 1024, 1251, "imagenet2012"
    data = b"\x0a\x00"
    head = struct.pack("<Q", len(data))
    record = head + struct.pack("<I", masked_crc(head)) + data + struct.pack("<I", masked_crc(data))
    version = place / name / "5.1.0"
    version.mkdir(parents=True)
    for number in range(shards):
        (version / f"{name}-train.tfrecord-{number:05}-of-{shards:05}").write_bytes(record * each)
    split = {"name": "train", "numBytes": "0", "shardLengths": [str(each)] * shards}
    about = {"name": name, "version": "5.1.0", "fileFormat": "tfrecord", "splits": [split]}
    (version / "dataset_info.json").write_text(json.dumps(about))
    (version / "features.json").write_text("{}")
    (version / "label.labels.txt").write_text("\n".join(map(str, range(1000))))
    code = (
        "import time\n"
        "from benchmarks.peak import peak\n"
        "from shortcut_models.data.tfds import Tfds\n"
        "before, began = peak(), time.perf_counter()\n"
        f"source = Tfds(path={str(version)!r}, size=256).open()\n"
        "source.records._fetch(len(source) - 1)\n"
        "print(len(source), time.perf_counter() - began, (peak() - before) / 1024)\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    found = []
    for _ in range(1 + 3):  # The first makes the index.
        words = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        found.append([float(word) for word in words.split()])
    return {
        "records": int(found[0][0]),
        "seconds to make the index": found[0][1],
        "seconds": statistics.median(row[1] for row in found[1:]),
        "MiB": max(row[2] for row in found[1:]),
    }


def kills(place: Path) -> dict[str, Any]:
    """Whether `prepare` that is killed 30 times at random moments ends with the bytes of one that is not."""
    from PIL import Image

    rng, moments = np.random.default_rng(0), random.Random(0)
    (place / "source").mkdir()
    for number in range(200):
        Image.fromarray(rng.integers(0, 256, (200, 300, 3), np.uint8)).save(place / "source" / f"{number:04}.png")

    def start(out: str) -> subprocess.Popen[bytes]:
        code = (
            "from pathlib import Path\n"
            "from shortcut_models import prepare\n"
            "prepare.SHARD_ITEMS = 5\n"
            f"prepare.prepare({str(place / 'source')!r}, Path({str(place / out)!r}), size=64)\n"
        )
        return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    began = time.perf_counter()
    if start("whole").wait():
        raise SystemExit("prepare failed")
    usual, killed, starts = time.perf_counter() - began, 0, 0
    while killed < 30:
        process, starts = start("killed"), starts + 1
        try:
            process.wait(moments.uniform(0.3, 1) * usual)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        else:  # It was done before its time: from the start again, so that the rest of the kills hit something.
            shutil.rmtree(place / "killed")
    if start("killed").wait():
        raise SystemExit("prepare failed")
    whole, other = ({f.name: f.read_bytes() for f in (place / n).iterdir()} for n in ("whole", "killed"))
    return {"kills": killed, "starts": starts, "same bytes": whole == other}


def step_latents(place: Path) -> dict[str, Any]:
    """One training step of imagenet256-b with 8 images, from stored latents."""
    moments = np.random.default_rng(0).standard_normal((8, 32, 32, 4)).astype(np.float16)
    return _step(place, {"mean": moments, "deviation": np.abs(moments)})


def step_pixels(place: Path) -> dict[str, Any]:
    """The same from pixels, with the published VAE's network (random weights) in front."""
    from safetensors.numpy import save_file

    from benchmarks.vae import weights

    file = place / "diffusion_pytorch_model.safetensors"
    save_file(weights(), file)
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    return _step(place, {"image": images}, str(file))


def _step(place: Path, stored: dict[str, np.ndarray], vae: str = "") -> dict[str, Any]:
    from dataclasses import replace

    import jax

    from shortcut_models import sharding
    from shortcut_models.codecs.latents import Latents
    from shortcut_models.codecs.sd_vae_file import load_vae
    from shortcut_models.presets import get_preset
    from shortcut_models.state import init_state, shapes_of
    from shortcut_models.train import compile_step

    del place
    config = replace(get_preset("imagenet256-b"), batch_size=8).finished()
    layout = sharding.make_layout(shapes_of(config), "dp", config.model.stacked)
    codec = Latents.of(load_vae(vae)) if vae else Latents(identity="")
    encode = jax.jit(lambda codec, batch, key: codec.encode(batch, key))
    began = time.perf_counter()
    step = compile_step(config, layout)
    compiled = time.perf_counter() - began
    state = jax.jit(lambda: init_state(config), out_shardings=layout.placed)()
    labels = jax.device_put(np.zeros(8, np.int32), sharding.batch_sharding(layout.mesh))
    seconds: dict[str, list[float]] = {"encode": [], "step": []}
    from shortcut_models.objectives import Batch

    for number in range(3):
        began = time.perf_counter()
        placed = sharding.place_batch(layout.mesh, stored)
        x1 = jax.block_until_ready(encode(codec, placed, jax.random.key(number)))
        seconds["encode"].append(time.perf_counter() - began)
        began = time.perf_counter()
        state = jax.block_until_ready(step(state, Batch(x1, labels, None), np.uint32(number)))
        seconds["step"].append(time.perf_counter() - began)
    totals = {name: np.asarray(values).tolist() for name, values in state.totals.items()}
    return {
        "batch": 8,
        "seconds to compile": compiled,
        "seconds": {name: statistics.median(values[1:]) for name, values in seconds.items()},
        "GiB, at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "finite": bool(np.isfinite(totals["loss"]).all()),
    }


def _race(
    calls: dict[str, Callable[[], Any]], items: int, times: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Items a second of each, which take turns in changing order, and the ratio of the first to the second."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name in list(calls)[:: 1 if number % 2 else -1]:
            began = clock()
            for _ in range(times):
                calls[name]()
            rates[name].append(items * times / (clock() - began))
    first, second = (values[1:] for values in rates.values())  # The first round warms up.
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return {"per second": {name: statistics.median(values[1:]) for name, values in rates.items()}, "ratio": ratio}


PARTS = {
    "folder": folder,
    "latents": latents,
    "index": index,
    "kills": kills,
    "step-latents": step_latents,
    "step-pixels": step_pixels,
}


def main() -> None:
    """Measure what was asked for, print it and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    startup.prepare()  # As in a training: the allocator keeps its memory.
    for name in asked.parts or PARTS:
        with tempfile.TemporaryDirectory() as place:
            found = PARTS[name](Path(place))
        print(name, found, flush=True)
        report = json.loads(asked.out.read_text()) if asked.out.exists() else {}
        about = provenance(f"python -m benchmarks.data {name}")
        write_json(asked.out, report | {name: found | {"load": round(os.getloadavg()[0], 1), **about}})


if __name__ == "__main__":
    main()
