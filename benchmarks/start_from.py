"""Is a pretrained flow worth more than a start from scratch? The same number of images, spent in two ways.

    python benchmarks/start_from.py run --seeds 0,1,2     trains and measures what is missing, into runs/start-from/
    python benchmarks/start_from.py table                 writes start_from-digits.json and the table in docs/results.md
    python benchmarks/start_from.py run --preset emoji --data emoji-16 --labels data --steps 1000
    python benchmarks/start_from.py table --preset emoji --steps 1000

From scratch, every image trains the shortcut model. Otherwise most of them train a flow, as somebody has done
already who has one, and the rest (a quarter, a half) makes a shortcut model of it with `--start-from`.
Interrupted, `run` continues; `--only 0,2` picks rows, so that two processes can share the work.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from shortcut_models.config import Config
from shortcut_models.data import choose
from shortcut_models.evaluate import evaluate
from shortcut_models.files import write_json
from shortcut_models.metrics.base import Labels
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.presets import get_preset
from shortcut_models.provenance import provenance
from shortcut_models.train import train
from shortcut_models.weights import load

COUNT = 1000
BUDGETS = (1, 2, 4, 32)
FOLDER = Path("runs/start-from")
DOCS, RESULTS = Path("docs"), Path("benchmarks/results")


def rows(all_steps: int) -> dict[str, tuple[int, int]]:
    """For each row of the table the steps of the flow, and those of the shortcut model."""
    shares = {"a quarter": all_steps // 4, "half": all_steps // 2}
    started = {f"{name} of them from a flow on the rest": (all_steps - k, k) for name, k in shares.items()}
    return {"shortcut from scratch": (0, all_steps), **started}


def lasting(config: Config, steps: int, seed: int) -> Config:
    """The configuration for a training of so many steps, whose learning rate ends at 0."""
    warmup = min(config.optimizer.warmup_steps, steps // 10)
    optimizer = replace(config.optimizer, warmup_steps=warmup, decay_steps=steps)
    return replace(config, max_steps=steps, save_interval=steps, seed=seed, optimizer=optimizer)


def make(config: Config, folder: Path) -> None:
    """Train, or go on; ends the program where the user stops it."""
    if train(config, folder, " ".join(sys.argv)):
        sys.exit("stopped; the same command continues")


def run(preset: str, seeds: list[int], only: list[int] | None, all_steps: int, data: str, labels: Labels) -> None:
    """Train and measure each row with each seed, skipping what is there."""
    base = get_preset(preset)
    base = replace(base, data=choose(data, base.data)) if data else base
    for seed in seeds:
        for number, (name, (flow_steps, steps)) in enumerate(rows(all_steps).items()):
            folder = FOLDER / preset / f"{number}-seed-{seed}"
            if (only is not None and number not in only) or (folder / "report.json").exists():
                continue
            print(f"{folder}: {name}", flush=True)
            config = lasting(base, steps, seed)
            if flow_steps:
                flow = folder.with_name(f"{folder.name}-flow")
                make(lasting(replace(base, objective=FlowMatching()), flow_steps, seed), flow)
                config = replace(config, start_from=str(flow))
            make(config, folder)
            resume = folder / ".evaluate"
            found = evaluate(load(folder), config.data, BUDGETS, COUNT, labels=labels, resume=resume)
            about = {"row": name, "flow_steps": flow_steps, "shortcut_steps": steps, "batch": config.batch_size}
            write_json(folder / "report.json", {**about, **found.report, **provenance(" ".join(sys.argv))})


def table(preset: str, all_steps: int) -> None:
    """Collect the reports into one JSON file, and from it the preset's table in docs/results.md."""
    base, data, source = get_preset(preset), [], {}
    for number, (name, (flow_steps, steps)) in enumerate(rows(all_steps).items()):
        paths = sorted((FOLDER / preset).glob(f"{number}-seed-*/report.json"))
        reports = [json.loads(path.read_text()) for path in paths]
        assert all(report["row"] == name for report in reports), f"row {number} was measured as something else"
        values = {str(b): [r["steps"][str(b)] for r in reports] for b in BUDGETS}
        data.append({"row": name, "flow_steps": flow_steps, "shortcut_steps": steps, "seeds": len(reports), **values})
        source |= {key: r[key] for r in reports for key in ("versions", "device", "commit", "real")}
    found = {"preset": preset, "training_steps": all_steps, "batch_size": base.batch_size, "count": COUNT, "rows": data}
    write_json(RESULTS / f"start_from-{preset}.json", {**found, **source})
    metric = next(iter(data[0]["1"][0])) if data[0]["1"] else "-"
    lines = [
        f"| {metric} | seeds | " + " | ".join(f"{b} step{'s' * (b > 1)}" for b in BUDGETS) + " |",
        "|---|---|" + "---|" * len(BUDGETS),
    ]
    for row in data:
        cells = [_cell([values[metric] for values in row[str(b)]]) for b in BUDGETS]
        lines.append(f"| {row['row']} | {row['seeds']} | {' | '.join(cells)} |")
    text, begin, end = (DOCS / "results.md").read_text(), *(f"<!-- {mark}start-from-{preset} -->" for mark in ("", "/"))
    before, after = text.split(begin)[0], text.split(end)[1]
    (DOCS / "results.md").write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}")


def _cell(values: list[float]) -> str:
    """Mean, and range over the seeds if there are several."""
    if not values:
        return "-"
    spread = f" ({min(values):.3g}-{max(values):.3g})" if len(values) > 1 else ""
    return f"**{statistics.mean(values):.3g}**{spread}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--preset", default="digits", help="preset whose data, network and objective are used")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas")
    parser.add_argument("--steps", type=int, default=600, help="of all training; 600 of the digits take a minute")
    parser.add_argument("--data", default="", help="data in place of the preset's")
    parser.add_argument(
        "--labels", default="balanced", help="of the samples that are measured, as for shortcut evaluate"
    )
    parser.add_argument("--only", help="rows to run, by number, separated by commas")
    given = parser.parse_args()
    if given.action == "table":
        table(given.preset, given.steps)
    else:
        picked = [int(n) for n in given.only.split(",")] if given.only else None
        seeds = [int(s) for s in given.seeds.split(",")]
        run(given.preset, seeds, picked, given.steps, given.data, given.labels)
