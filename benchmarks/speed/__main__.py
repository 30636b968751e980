"""How fast is it, against what a user would take instead and against the limit?

    python -m benchmarks.speed                 everything for a CPU, 10 to 15 minutes: `make bench`
    python -m benchmarks.speed --device gpu    the GPU's set
    python -m benchmarks.speed train choices   some parts
    python -m benchmarks.speed more            training steps of B/2, XL/2, the demo, and in bfloat16: as long again

Each part writes docs/speed/DEVICE-PART.json; docs/speed.md and docs/scaling.md take their tables
from there. The peers need the extra `bench`, or a Python that has torch and diffusers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from shortcut_models import startup

PARTS = ("train", "choices", "breakdown", "sampler", "start", "memory", "growth", "scaling")
BY_NAME = ("more",)
MANY_DEVICES = ("scaling",)
ON_CPU = ("growth", "scaling")
# One compiles what the other has compiled; the rest reads the compiler's clock, or what a cache does not keep.
SAME_PROGRAMS = ("train", "choices", "breakdown")
DOCS = Path("docs")


def main() -> None:
    """Run the parts that are asked for, then write their tables into the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS, *BY_NAME], help=f"all but {BY_NAME[0]} by default")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="what to measure on")
    parser.add_argument("--peer-python", help="a Python that has torch and diffusers, if this one has not")
    parser.add_argument("--out", type=Path, default=DOCS / "speed", help="folder of the JSON files")
    parser.add_argument("--load", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load is not None:
        return measure(given.parts[0], given.device, given.peer_python, given.out, given.load)
    if given.device == "gpu" and "more" in given.parts:
        parser.error("the part more is for --device cpu; on a GPU, train has these sizes and types.")
    load = os.getloadavg()[0]  # Before our own parts weigh on it.
    with tempfile.TemporaryDirectory() as programs:
        failed = [part for part in given.parts or PARTS if not succeeds(part, given, load, programs)]
    from benchmarks.speed import page  # Imports JAX, which the parts' processes are to have for themselves.

    for name in ("speed.md", "scaling.md") if given.out == DOCS / "speed" else ():
        page.write(DOCS / name, given.out)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def succeeds(part: str, given: argparse.Namespace, load: float, programs: str) -> bool:
    """Run a part in a process of its own, so that none inherits another's memory or threads; whether it ended well."""
    print(f"{part} ...", flush=True)
    began = time.perf_counter()
    cpu = given.device == "cpu" or part in ON_CPU
    env = {name: value for name, value in os.environ.items() if name != startup.CACHE}
    env |= {"JAX_PLATFORMS": "cpu" if cpu else "", "JAX_NUM_CPU_DEVICES": "8" if part in MANY_DEVICES else "1"}
    env |= {startup.CACHE: programs} if part in SAME_PROGRAMS else {}
    env |= {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}  # PyTorch is to measure what we do.
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # A GPU's memory is the peer's, too.
    env["TORCHINDUCTOR_CACHE_DIR"] = str(Path(programs) / "torch")  # Else the next run finds what this one compiled.
    env[startup.ALLOCATOR] = startup.KEEP_MEMORY  # As `shortcut train` runs.
    more = ["--peer-python", given.peer_python] if given.peer_python else []
    command = [sys.executable, "-m", "benchmarks.speed", part, "--device", given.device, *more]
    command += ["--out", str(given.out), "--load", str(load)]
    status = subprocess.run(command, env=env, check=False).returncode
    print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    return status == 0


def measure(part: str, device: str, peer_python: str | None, out: Path, load: float) -> None:
    """One part, in this process; `load` is what the machine did before."""
    from benchmarks.speed import breakdown, choices, growth, memory, sampler, scaling, start, train_step
    from benchmarks.speed.measure import Product, Row, ceiling, copy_rate, race
    from benchmarks.speed.peers import Peers
    from shortcut_models import runs
    from shortcut_models.files import write_json

    run: dict[str, Callable[[str, Peers], Iterable[Row]]] = {
        "train": train_step.run,
        "more": train_step.run_more,
        "choices": choices.run,
        "breakdown": breakdown.run,
        "sampler": sampler.run,
        "start": start.run,
        "memory": memory.run,
        "growth": growth.run,
        "scaling": scaling.run,
    }
    peers = Peers(peer_python)
    about: Row = {}
    if part in ("train", "more", "choices", "sampler", "growth"):
        for dtype in ("float32", "bfloat16"):
            times = race({"": Product(dtype)}, 5)[""]
            about[f"largest product, {dtype}, TFLOP/s"] = ceiling(times) / 1e12
        about["copy GB/s"] = copy_rate() / 1e9
    command = f"python -m benchmarks.speed {part} --device {device}"
    busy = load > 0.7 and part not in ("memory", "scaling")  # Those read no clock.
    rows: list[Row] = []
    report = {"rows": rows, "about": about, "busy": busy, "load": load, **runs.provenance(command)}
    name, began = part if part == "scaling" else f"{device}-{part}", time.perf_counter()
    for row in run[part](device, peers):
        print(f"  {time.perf_counter() - began:3.0f} s  {row}", flush=True)
        rows.append(row)
        about |= {"torch": peers.version} if peers.version else {}
        write_json(out / f"{name}.json", report)  # After every row: who stops a long part keeps what it has measured.
    from benchmarks.speed import page

    print(page.markdown(report), flush=True)


if __name__ == "__main__":
    main()
