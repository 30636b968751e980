"""How fast is it, against what a user would take instead and against the limit?

    python -m benchmarks.speed                 everything, on a CPU: `make bench`
    python -m benchmarks.speed --device gpu    everything, on a GPU
    python -m benchmarks.speed train memory    some parts
    python -m benchmarks.speed --quick         the smallest network: does the benchmark run?

Each part writes benchmarks/results/speed-DEVICE-PART.json, and docs/speed.md and docs/gpu.md take
their tables from there. The peers need the extra `bench`, or a Python that has torch and diffusers.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.speed import page
from benchmarks.speed.parts import PARTS, Row
from benchmarks.speed.processes import Contestants
from benchmarks.speed.race import race


def main() -> None:
    """Run the parts that are asked for, then write their tables into the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="what to measure on")
    parser.add_argument("--quick", action="store_true", help="a tiny network; the pages stay as they are")
    parser.add_argument("--peer-python", help="a Python that has torch and diffusers, if this one has not")
    parser.add_argument("--out", type=Path, help=f"folder of the JSON files: {page.RESULTS}, or runs/speed if quick")
    given = parser.parse_args()
    if given.peer_python and not shutil.which(given.peer_python):
        parser.error(f"--peer-python {given.peer_python} is no program: give the path of a Python.")
    busy = os.getloadavg()[0] > 0.7  # Before our own parts weigh on it.
    out = given.out or (Path("runs/speed") if given.quick else page.RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        contestants = Contestants(given.device, Path(kept), given.peer_python)
        origin = machine(contestants, given.device)
        for part in given.parts or PARTS:
            measure(part, given, contestants, origin | {"busy": busy}, out)
    for path in page.PAGES if out == page.RESULTS else ():
        page.write(path, out)


def machine(contestants: Contestants, device: str) -> Row:
    """Where this runs, and which commit; the rate of the largest products goes into `contestants.about`."""
    with contestants.ours("ceiling") as child:
        if child.error:
            sys.exit(f"nothing runs with --device {device}: {child.error}")
        facts = child.facts()
        times = race({dtype: partial(child, dtype=dtype) for dtype in ("float32", "bfloat16")}, 5)
    for dtype, found in times.items():
        contestants.about[f"largest product, {dtype}, TFLOP/s"] = facts["operations"] / min(found) / 1e12
    return facts["origin"]


def measure(part: str, given: argparse.Namespace, contestants: Contestants, origin: Row, out: Path) -> None:
    """Write the part's file, after every row, so that a part that is stopped keeps what it has measured."""
    chosen, rows, began = "quick" if given.quick else given.device, [], time.perf_counter()
    command = f"python -m benchmarks.speed {part} --device {given.device}" + " --quick" * given.quick
    report = {"rows": rows, "about": contestants.about, **origin, "command": command}
    for row in PARTS[part](chosen, contestants):
        rows.append(row)
        (out / f"speed-{chosen}-{part}.json").write_text(json.dumps(report, indent=2) + "\n")
        print(f"{part}, {time.perf_counter() - began:.0f} s: {row}", flush=True)
    print(page.markdown(report), flush=True)


if __name__ == "__main__":
    main()
