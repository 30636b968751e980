"""How fast is it, against what a user would take instead and against the limit?

    python -m benchmarks.speed                 everything for a CPU, under 15 minutes: `make bench`
    python -m benchmarks.speed --device gpu    the GPU's set
    python -m benchmarks.speed train choices   some parts

Each part writes docs/speed/DEVICE-PART.json; docs/speed.md and docs/scaling.md take their tables
from there. The peers need the extra `bench`, or a Python that has torch and diffusers.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from shortcut_models import startup

PARTS = ("train", "choices", "breakdown", "sampler", "start", "memory", "growth", "scaling")
MANY_DEVICES = ("growth", "scaling")
DOCS = Path("docs")


def main() -> None:
    """Run each part in a process of its own, so that none inherits another's memory, caches or threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="parts to run; all by default")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="what to measure on")
    parser.add_argument("--peer-python", help="a Python that has torch and diffusers, if this one has not")
    parser.add_argument("--out", type=Path, default=DOCS / "speed", help="folder of the JSON files")
    parser.add_argument("--load", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load is not None:
        return measure(given.parts[0], given.device, given.peer_python, given.out, given.load)
    failed, load = [], os.getloadavg()[0]  # Before our own parts weigh on it.
    for part in given.parts or PARTS:
        print(f"{part} ...", flush=True)
        began = time.perf_counter()
        cpu = given.device == "cpu" or part in MANY_DEVICES
        env = {**os.environ, "JAX_PLATFORMS": "cpu" if cpu else "", "JAX_NUM_CPU_DEVICES": "1"}
        env |= {"JAX_NUM_CPU_DEVICES": "8"} if part in MANY_DEVICES else {}
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # A GPU's memory is the peer's, too.
        env[startup.ALLOCATOR] = startup.KEEP_MEMORY  # As `shortcut train` runs.
        more = ["--peer-python", given.peer_python] if given.peer_python else []
        command = [sys.executable, "-m", "benchmarks.speed", part, "--device", given.device, *more]
        command += ["--out", str(given.out), "--load", str(load)]
        if subprocess.run(command, env=env, check=False).returncode:
            failed.append(part)
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    from benchmarks.speed import page  # Imports JAX, which the parts' processes are to have for themselves.

    for name in ("speed.md", "scaling.md") if given.out == DOCS / "speed" else ():
        page.write(DOCS / name, given.out)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def measure(part: str, device: str, peer_python: str | None, out: Path, load: float) -> None:
    """One part, in this process; `load` is what the machine did before."""
    from benchmarks.speed import breakdown, choices, growth, memory, sampler, scaling, start, train_step
    from benchmarks.speed.measure import Product, Row, copy_rate, race
    from benchmarks.speed.peers import Peers
    from shortcut_models import runs
    from shortcut_models.files import write_json

    modules = {
        "train": train_step,
        "choices": choices,
        "breakdown": breakdown,
        "sampler": sampler,
        "start": start,
        "memory": memory,
        "growth": growth,
        "scaling": scaling,
    }
    peers = Peers(peer_python)
    about: Row = {}
    if part in ("train", "sampler"):
        for dtype in ("float32", "bfloat16"):
            product = Product(dtype)
            about[f"largest product, {dtype}, TFLOP/s"] = product.operations / min(race({"": product}, 5)[""]) / 1e12
        about["copy GB/s"] = copy_rate() / 1e9
    rows = []
    measured: Iterable[Row] = modules[part].run(device, peers)
    for row in measured:
        print(f"  {row}", flush=True)
        rows.append(row)
    if peers.version:
        about["torch"] = peers.version
    command = f"python -m benchmarks.speed {part} --device {device}"
    busy = load > 0.7 and part not in ("memory", "scaling")  # Those read no clock.
    report = {"rows": rows, "about": about, "busy": busy, "load": load, **runs.provenance(command)}
    name = part if part == "scaling" else f"{device}-{part}"
    write_json(out / f"{name}.json", report)
    from benchmarks.speed import page

    print(page.markdown(report), flush=True)


if __name__ == "__main__":
    main()
