"""Make docs/results.md from comparisons: `python benchmarks/publish_results.py time|write`.

Reads the JSON files that `shortcut compare digits --steps 1,2,4,8,32,128` left in runs/compare-digits, and
gathers them in benchmarks/results/comparison.json; methods that were not run again keep what is there, with the commit
that measured it. `time` measures the methods' steps in turns, on an idle
machine, for the time column: a comparison's own clock also counts what else ran. The text between the
tables is written by hand; the tables and the verdicts on the paper's claims are not.
"""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shortcut_models import catalogue, sharding
from shortcut_models.compare import METHODS, PAIR_STEPS, Comparison, line, spread, table
from shortcut_models.config import Config
from shortcut_models.config_json import from_json
from shortcut_models.figures import draw_quality
from shortcut_models.files import write_json
from shortcut_models.objectives import Batch
from shortcut_models.provenance import provenance
from shortcut_models.state import init_state, shapes_of
from shortcut_models.train import compile_step

RUN, DOCS, RESULTS = Path("runs/compare-digits"), Path("docs"), Path("benchmarks/results")
DISTANCE, BUDGETS = "frechet-pixels-1000", (1, 2, 4, 8, 32, 128)
TIME = RESULTS / "comparison-time.json"
SEEDS = 3

Reports = dict[str, list[dict[str, Any]]]


def read() -> Reports:
    """The reports just made, of all methods and seeds, in the order of the table."""
    found = {name: [json.loads(p.read_text()) for p in sorted(RUN.glob(f"{name}-seed-?.json"))] for name in METHODS}
    return {name: reports for name, reports in found.items() if len(reports) == SEEDS}


def read_all() -> Reports:
    """The same, and of methods that were not run again the reports that are published."""
    found = json.loads((RESULTS / "comparison.json").read_text())["digits"] | read()
    return {name: found[name] for name in METHODS if name in found}


def measure_time(settings: dict[str, Any], names: Sequence[str], path: Path, turns: int = 7, steps: int = 40) -> None:
    """Seconds per step of every method's last stage, methods taking turns; `settings` are those of a comparison."""
    comparison = Comparison(base=from_json(settings["base"]), objectives=tuple(names), budget=settings["budget"])
    ready = {name: prepare(list(comparison.stages(name, 0, Path()).values())[-1]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(turns):
        for name, step in ready.items():
            began = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[name].append((time.perf_counter() - began) / steps)
    per_step = {name: statistics.median(values) for name, values in seconds.items()}
    write_json(path, {"seconds_per_step": per_step, **provenance(f"benchmarks/{Path(sys.argv[0]).name} time")})
    print(json.dumps(per_step, indent=2))


def prepare(config: Config) -> Any:
    """A function that takes one more step of a training, and waits for it."""
    layout = sharding.make_layout(shapes_of(config), "dp")
    step, paired = compile_step(config, layout), config.data.paired
    state = jax.jit(lambda: init_state(config), out_shardings=layout.placed)()
    x1 = np.zeros((config.batch_size, *config.model.shape), np.float32)
    arrays = {"x1": x1, "label": np.zeros(config.batch_size, np.int32)} | ({"x0": x1} if paired else {})
    batch = Batch(**sharding.place_batch(layout.mesh, arrays))

    def once() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, batch, np.uint32(0)))

    once()
    return once


def charge(found: Reports, path: Path) -> None:
    """Put the measured seconds per step in place of the clocks of the runs, for all stages; pairs keep theirs."""
    per_step = json.loads(path.read_text())["seconds_per_step"]
    for name, reports in found.items():
        for report in reports:
            size = report["settings"]["base"]["batch_size"]
            for part in report["cost"]:
                stage = catalogue.TEACHER if part["what"].startswith("training flow-seed") else name
                if part["images"]:
                    part["seconds"] = part["images"] / size * per_step[stage]
            report["seconds"] = sum(part["seconds"] for part in report["cost"])


def claims(found: Reports) -> list[str]:
    """What the paper says of its table 1, and whether ours says so too."""

    def values(name: str, steps: int) -> list[float]:
        return [report["steps"][str(steps)][DISTANCE] for report in found[name]]

    def mean(name: str, steps: int) -> float:
        return statistics.mean(values(name, steps))

    def beats(a: tuple[str, int], b: tuple[str, int]) -> bool:
        """Better on average by more than the larger spread."""
        return mean(*b) - mean(*a) > max(statistics.stdev(values(*a)), statistics.stdev(values(*b)))

    def verdict(holds: bool, *entries: tuple[str, int]) -> str:
        shown = ", ".join(f"{name} at {steps}: {spread(values(name, steps))}" for name, steps in entries)
        return f"{'**holds**' if holds else '**does not hold**'} ({shown})"

    ours, original, flow = "shortcut", "shortcut-original", "flow-matching"
    end_to_end = [name for name in found if name not in ("progressive", "consistency-distillation", "reflow")]
    two_stage = [name for name in found if name not in end_to_end]
    best_two, best_one = min(two_stage, key=lambda n: mean(n, 1)), min(end_to_end, key=lambda n: mean(n, 1))
    worst = max(BUDGETS, key=lambda n: mean(ours, n))
    rows = [
        (
            "Flow matching collapses in one step",
            verdict(mean(flow, 1) > 5 * mean(flow, 128), (flow, 128), (flow, 1)),
        ),
        (
            "Shortcut models keep flow matching's many-step quality",
            verdict(not beats((flow, 128), (ours, 128)), (ours, 128), (flow, 128)),
        ),
        (
            "... with the recipe of the original code",
            verdict(not beats((flow, 128), (original, 128)), (original, 128), (flow, 128)),
        ),
        (
            "One network serves every budget (its worst budget is better than flow matching's 8 steps)",
            verdict(beats((ours, worst), (flow, 8)), (ours, worst), (flow, 8)),
        ),
        (
            "Shortcut is the best end-to-end method in one step",
            verdict(best_one == ours, (ours, 1), *((best_one, 1),) if best_one != ours else ()),
        ),
        (
            "End-to-end training beats or matches two stages in one step",
            verdict(not beats((best_two, 1), (ours, 1)), (ours, 1), (best_two, 1)),
        ),
        (
            "Progressive distillation is good at one step alone",
            verdict(beats(("progressive", 1), ("progressive", 4)), ("progressive", 1), ("progressive", 4)),
        ),
    ]
    return ["| The paper says | Here |", "|---|---|", *(f"| {claim} | {text} |" for claim, text in rows)]


def write() -> None:
    """Fill docs/results.md with the tables, and keep what they are made of."""
    path = DOCS / "results.md"
    text = path.read_text()
    found = read_all()
    charge(found, TIME)
    text = fill(text, "digits", table(found, BUDGETS).strip())
    text = fill(text, "claims", "\n".join(claims(found)))
    path.write_text(text)
    write_json(RESULTS / "comparison.json", {"pair_steps": PAIR_STEPS, "digits": found})
    lines = {name: line(reports, DISTANCE, BUDGETS) for name, reports in found.items()}
    draw_quality(DOCS / "results-digits-quality.png", lines, DISTANCE, found["shortcut"][0]["real"][DISTANCE])
    if len(read()) == len(METHODS):  # The picture of samples is of methods that were all run.
        shutil.copy(RUN / "samples.png", DOCS / "results-digits-samples.png")


def fill(text: str, mark: str, content: str) -> str:
    """Put content between the two marks."""
    before, rest = text.split(f"<!-- {mark} -->\n")
    after = rest.split(f"<!-- /{mark} -->")[1]
    return f"{before}<!-- {mark} -->\n{content}\n<!-- /{mark} -->{after}"


if __name__ == "__main__":
    if sys.argv[1:] not in (["time"], ["write"]):
        sys.exit(__doc__)
    if sys.argv[1] == "time":
        measure_time(next(iter(read().values()))[0]["settings"], METHODS, TIME)
    else:
        write()
