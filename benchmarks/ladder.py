"""From the original recipe to ours, one change at a time: which remedy matters?

    python benchmarks/ladder.py run --seeds 0,1,2     trains what is missing, into runs/ladder/
    python benchmarks/ladder.py table                 writes benchmarks/results/ladder.json and docs/ladder.md

Every rung has the same width, depth, data and number of images; it keeps the changes of the rungs
above it. Interrupted, `run` continues. Two processes may share the work: give each its own seeds.
`table` takes the numbers of rungs that were not run again from ladder.json.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from shortcut_models.config import Config
from shortcut_models.evaluate import evaluate
from shortcut_models.files import write_json
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut
from shortcut_models.optimizer import Optimizer
from shortcut_models.presets import get_preset
from shortcut_models.provenance import provenance
from shortcut_models.train import train
from shortcut_models.weights import load

STEPS = 3000  # Fewer than the demo's 8,000, for 39 runs to end within two hours.
BUDGETS = (1, 2, 4, 128)
FOLDER = Path("runs/ladder")
DOCS, RESULTS = Path("docs"), Path("benchmarks/results")


def rungs() -> dict[str, Config]:
    """The configurations, from the original's to the preset's, each one change on from the last."""
    preset = get_preset("digits")
    optimizer = replace(preset.optimizer, decay_steps=STEPS)
    ours = replace(preset, max_steps=STEPS, save_interval=STEPS, optimizer=optimizer)
    # Where the first eight rungs lead to, the preset of its time.
    goal: Any = Shortcut(target_decay=0.98, flow_weight=4.0, averaging="constant")
    sizes = {
        name: getattr(ours.model, name)
        for name in ("image_size", "channels", "num_classes", "patch_size", "hidden_size", "depth", "num_heads", "scan")
    }
    config = replace(
        ours,
        model=DiT.original(**sizes),
        objective=ORIGINAL,
        optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1),
        ema_decay=0.999,
    )
    found = {"the original's recipe": config}

    def change(name: str, **parts: object) -> None:
        nonlocal config
        config = replace(config, **parts)  # pyrefly: ignore[bad-argument-type]
        found[name] = config

    def objective(name: str, *fields: str) -> None:
        change(name, objective=replace(config.objective, **{field: getattr(goal, field) for field in fields}))

    objective(f"target average {goal.target_decay} instead of 0.999", "target_decay")
    change("no weight decay", optimizer=replace(config.optimizer, weight_decay=0.0))
    objective(f"jumps on {goal.share:g} of the batch instead of 1/8", "share")
    objective("adaptive weight on the jumps", "adaptive_power", "adaptive_floor", "flow_weight")
    objective(
        "logit-normal times, no clipping, labels dropped for jumps too",
        *("times", "clip", "noise_floor", "bootstrap_dropout"),
    )
    change("network: smooth d, times scaled by 10, normed queries and keys, blocks start as identity", model=ours.model)
    change(f"warm-up and cosine, learning rate {ours.optimizer.learning_rate:g}", optimizer=ours.optimizer)
    last: Any = ours.objective
    goal = last
    objective(f"{goal.levels} levels instead of 128", "levels")
    objective("jumps of any length, each built of any two", "step_sizes", "split")
    objective(
        f"jumps on {goal.share:g} of the batch, flow weight {goal.flow_weight:g}, target average {goal.target_decay}",
        *("share", "flow_weight", "target_decay"),
    )
    objective("averages that grow from the first step", "averaging")
    objective("every length of jump as likely, instead of every octave", "longer")
    assert config == ours, "the last rung must be the preset"
    return found


def run(seeds: list[int], only: list[int] | None) -> None:
    """Train and measure each rung with each seed, skipping what is there."""
    for seed in seeds:
        for number, (name, config) in enumerate(rungs().items()):
            folder = FOLDER / f"{number:02d}-seed-{seed}"
            if (only is not None and number not in only) or (folder / "report.json").exists():
                continue
            print(f"{folder}: {name}", flush=True)
            if train(replace(config, seed=seed), folder, " ".join(sys.argv)):
                sys.exit("stopped; the same command continues")
            found = evaluate(load(folder), config.data, BUDGETS, 1000)
            write_json(folder / "report.json", {"rung": name, **found.report, **provenance(" ".join(sys.argv))})


def table() -> None:
    """Collect the reports into ladder.json, and from it the table of docs/ladder.md."""
    results = RESULTS / "ladder.json"
    old = json.loads(results.read_text())
    known = {rung["rung"]: rung for rung in old["rungs"]}
    data, real = [], old["real"]
    for number, name in enumerate(rungs()):
        reports = [json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"{number:02d}-seed-*/report.json"))]
        assert all(report["rung"] == name for report in reports), f"rung {number} was measured as something else"
        if reports:
            source = {key: reports[-1][key] for key in ("versions", "device", "commit")}
            steps = _gather([report["steps"] for report in reports])
            known[name] = {"rung": name, "seeds": len(reports), "steps": steps, **source}
            real = reports[-1]["real"]
        data.append(known.get(name, {"rung": name, "seeds": 0, "steps": {}}))
    write_json(results, {"training_steps": STEPS, "rungs": data, "real": real})
    lines = [
        "| | " + " | ".join(f"{steps} step{'s' * (steps > 1)}" for steps in BUDGETS) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    for rung in data:
        cells = [_cell(rung["steps"].get(str(steps), {})) for steps in BUDGETS]
        sign = "" if rung is data[0] else "+ "
        seeds = f" (seeds: {rung['seeds']})" if 0 < rung["seeds"] < 3 else ""
        lines.append(f"| {sign}{rung['rung']}{seeds} | " + " | ".join(cells) + " |")
    text = (DOCS / "ladder.md").read_text()
    before, after = text.split("<!-- table -->")[0], text.split("<!-- /table -->")[1]
    (DOCS / "ladder.md").write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- /table -->" + after)


def _gather(reports: list[dict]) -> dict[str, dict[str, list[float]]]:
    """For each budget and metric, the values of all seeds."""
    return {steps: {name: [r[steps][name] for r in reports] for name in reports[0][steps]} for steps in reports[0]}


def _cell(metrics: dict[str, list[float]]) -> str:
    """Pixel distance, mean and range over the seeds, and mean label agreement."""
    if not metrics:
        return "-"
    distance, agreement = metrics["frechet-pixels-1000"], metrics["agreement-digitnet1-1000"]
    digits = 1 if statistics.mean(distance) >= 10 else 2
    spread = f"({min(distance):.{digits}f}-{max(distance):.{digits}f})"
    return f"**{statistics.mean(distance):.{digits}f}** {spread}, {100 * statistics.mean(agreement):.0f} %"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas")
    parser.add_argument("--only", help="rungs to run, by number, separated by commas")
    given = parser.parse_args()
    if given.action == "table":
        table()
    else:
        run([int(s) for s in given.seeds.split(",")], [int(n) for n in given.only.split(",")] if given.only else None)
