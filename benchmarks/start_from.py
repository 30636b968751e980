"""Is a pretrained flow worth more than a start from scratch? The same number of images, spent in two ways.

    python benchmarks/start_from.py run --seeds 0,1,2     trains and measures what is missing, into runs/start-from/
    python benchmarks/start_from.py table                 writes start_from.json and the table in docs/results.md

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
from shortcut_models.evaluate import evaluate
from shortcut_models.files import write_json
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.presets import get_preset
from shortcut_models.provenance import provenance
from shortcut_models.train import train
from shortcut_models.weights import load

STEPS = 600  # Few, for three rows of a seed to take three minutes on two idle cores.
COUNT = 1000
BUDGETS = (1, 2, 4, 32)
FOLDER = Path("runs/start-from")
DOCS, RESULTS = Path("docs"), Path("benchmarks/results")


def rows() -> dict[str, tuple[int, int]]:
    """For each row of the table the steps of the flow, and those of the shortcut model."""
    shares = {"a quarter": STEPS // 4, "half": STEPS // 2}
    started = {f"{name} of them from a flow on the rest": (STEPS - k, k) for name, k in shares.items()}
    return {"shortcut from scratch": (0, STEPS), **started}


def lasting(config: Config, steps: int, seed: int) -> Config:
    """The configuration for a training of so many steps, whose learning rate ends at 0."""
    warmup = min(config.optimizer.warmup_steps, steps // 10)
    optimizer = replace(config.optimizer, warmup_steps=warmup, decay_steps=steps)
    return replace(config, max_steps=steps, save_interval=steps, seed=seed, optimizer=optimizer)


def make(config: Config, folder: Path) -> None:
    """Train, or go on; ends the program where the user stops it."""
    if train(config, folder, " ".join(sys.argv)):
        sys.exit("stopped; the same command continues")


def run(preset: str, seeds: list[int], only: list[int] | None) -> None:
    """Train and measure each row with each seed, skipping what is there."""
    base = get_preset(preset)
    for seed in seeds:
        for number, (name, (flow_steps, steps)) in enumerate(rows().items()):
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
            found = evaluate(load(folder), config.data, BUDGETS, COUNT, resume=folder / ".evaluate")
            about = {"row": name, "flow_steps": flow_steps, "shortcut_steps": steps, "batch": config.batch_size}
            write_json(folder / "report.json", {**about, **found.report, **provenance(" ".join(sys.argv))})


def table(preset: str) -> None:
    """Collect the reports into start_from.json, and from it the table of docs/results.md."""
    base, data, source = get_preset(preset), [], {}
    for number, (name, (flow_steps, steps)) in enumerate(rows().items()):
        paths = sorted((FOLDER / preset).glob(f"{number}-seed-*/report.json"))
        reports = [json.loads(path.read_text()) for path in paths]
        assert all(report["row"] == name for report in reports), f"row {number} was measured as something else"
        values = {str(b): [r["steps"][str(b)] for r in reports] for b in BUDGETS}
        data.append({"row": name, "flow_steps": flow_steps, "shortcut_steps": steps, "seeds": len(reports), **values})
        source |= {key: r[key] for r in reports for key in ("versions", "device", "commit", "real")}
    found = {"preset": preset, "training_steps": STEPS, "batch_size": base.batch_size, "count": COUNT, "rows": data}
    write_json(RESULTS / "start_from.json", {**found, **source})
    metric = next(iter(data[0]["1"][0])) if data[0]["1"] else "-"
    lines = [
        f"| {metric} | seeds | " + " | ".join(f"{b} step{'s' * (b > 1)}" for b in BUDGETS) + " |",
        "|---|---|" + "---|" * len(BUDGETS),
    ]
    for row in data:
        cells = [_cell([values[metric] for values in row[str(b)]]) for b in BUDGETS]
        lines.append(f"| {row['row']} | {row['seeds']} | {' | '.join(cells)} |")
    text, mark = (DOCS / "results.md").read_text(), "<!-- start-from -->"
    before, after = text.split(mark)[0], text.split(mark.replace("<!-- ", "<!-- /"))[1]
    (DOCS / "results.md").write_text(f"{before}{mark}\n" + "\n".join(lines) + f"\n<!-- /start-from -->{after}")


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
    parser.add_argument("--only", help="rows to run, by number, separated by commas")
    given = parser.parse_args()
    if given.action == "table":
        table(given.preset)
    else:
        picked = [int(n) for n in given.only.split(",")] if given.only else None
        run(given.preset, [int(s) for s in given.seeds.split(",")], picked)
