"""Train and measure several objectives on one data set, network and budget, and put them in one table.

The budget is counted in images: each method sees exactly as many, and one that needs a trained flow
first pays for it out of the same budget (half for the flow, half for what is made of it; the flow is
trained once per seed, and charged to each method that uses it). Images are not all that a method
costs, so arithmetic and time are reported beside: calls of a teacher do not look free.

A folder holds a run folder and a JSON file for each method and seed, and from these table.md,
quality.png and samples.png. Processes that share the folder share the work.
"""

import json
import math
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shortcut_models import catalogue
from shortcut_models.config import Config, check_fits, choose
from shortcut_models.config_json import to_json
from shortcut_models.costs import count_flops, step_flops
from shortcut_models.data.pairs import Pairs, is_pairs, read_about
from shortcut_models.errors import InputError, check_values, check_whole
from shortcut_models.evaluate import Plan, check_plan, evaluate, rounded
from shortcut_models.figures import Line, draw_quality
from shortcut_models.files import hold, whole_file, write_json
from shortcut_models.metrics.references import sample_shape
from shortcut_models.metrics.yardstick import Wish, choose_yardstick
from shortcut_models.objectives import Objective
from shortcut_models.outputs import default_labels, say_if_untrained
from shortcut_models.pairs import make_pairs
from shortcut_models.provenance import provenance
from shortcut_models.terminal import Progress
from shortcut_models.train import train
from shortcut_models.views import get_view
from shortcut_models.weights import load

METHODS = tuple(name for name, entry in catalogue.OBJECTIVES.items() if entry.compared)
"""The default: the methods of the paper's table 1 that share its straight path, and shortcut as we train it."""

PAIR_STEPS = 128
"""Steps of the flow that makes reflow's pairs, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how it is measured."""

    base: Config
    """Network, data, batch size and optimiser of every method, and the settings of its own objective."""
    objectives: tuple[str, ...] = METHODS
    """Names, as `--objective` takes them."""
    steps: tuple[int, ...] = (1, 4, 128)
    """Step budgets to measure."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training."""
    budget: int
    """Images that each method may see in training."""
    count: int = 1000
    """Samples to measure by, with balanced labels."""
    guidance: float = 1.0
    """Guidance scale of sampling; of a method that learns pairs, the guidance of its pairs."""
    pairs: int = 10_000
    """Pairs that reflow learns from."""

    def __post_init__(self) -> None:
        check_values("", self, wide=("budget",))
        for name in self.objectives:
            catalogue.check("objective", catalogue.OBJECTIVES, name)
        for name in ("objectives", "steps", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"--{name} {','.join(map(str, values))} must name one or more, each once.")
        for seed in self.seeds:
            check_whole("--seeds", seed, 0, 2**32 - 1)
        if self.pairs < 1:
            raise InputError(f"--pairs is {self.pairs}, but at least 1 pair must be made.")
        least = max(2, self.base.data.num_classes)
        if self.count < least:
            raise InputError(
                f"--count is {self.count}, but measuring takes at least {least} samples, one of each class."
            )
        self.plan()  # Raises if it cannot be sampled so.
        size = self.base.batch_size
        if self.budget < size or self.budget % size:
            near = max(self.budget // size, 1) * size
            raise InputError(
                f"a budget of {self.budget} images is no whole number of batches of {size}: "
                f"{self.budget} / {size} = {self.budget / size:g}; use {near} or {near + size}."
            )
        check_fits(self.base)
        for name in self.objectives:
            stages = list(self.stages(name, self.seeds[0], Path()).values())  # Raises if the budget is too small.
            for steps in self.steps:
                stages[-1].objective.jumps(steps)  # Raises if it cannot take as many.
            for config in stages:
                if self.guidance != 1 and config.objective.unconditional:
                    raise InputError(
                        f"--guidance {self.guidance:g} pushes towards labels, but none is learnt from: leave it out."
                    )
                if self.guidance != 1 and not config.objective.trains_null_label:
                    raise InputError(
                        f"--guidance {self.guidance:g} needs models that learnt to answer without a label, but {name} "
                        "drops none (objective.label_dropout 0): compare without guidance, or leave it out."
                    )

    def stages(self, name: str, seed: int, folder: Path) -> dict[Path, Config]:
        """The run folders that a method fills in one seed, in order, with their configurations."""
        steps = self.budget // self.base.batch_size
        own = folder / f"{name}-seed-{seed}"
        if not has_two_stages(name):
            return {own: self._config(name, steps, seed)}
        if steps < 2:
            raise InputError(
                f"{name} has two stages, a flow and what is made of it, but a budget of {self.budget} images is "
                f"{steps} step of {self.base.batch_size}: use at least {2 * self.base.batch_size}."
            )
        flow = folder / f"flow-seed-{seed}"
        changes: dict[str, Any] = {"start_from": str(flow)}
        if named(name).needs_pairs:
            changes["data"] = Pairs(path=str(flow / "pairs"))
        return {
            flow: self._config(catalogue.TEACHER, steps // 2, seed),
            own: self._config(name, steps - steps // 2, seed, **changes),
        }

    def plan(self) -> Plan:
        """Which samples are measured."""
        return Plan(budgets=self.steps, count=self.count, guidance=self.guidance)

    def check_measurable(self, folder: Path) -> None:
        """Raise InputError if what is trained could not be measured in the end, or its pairs do not fit the disk."""
        base = self.base
        shape = sample_shape(base.data.shows())
        yardstick = choose_yardstick(base.data, shape, Wish(), base.objective.unconditional)
        check_plan(base.model.num_classes, yardstick, self.plan())
        if any(named(name).needs_pairs for name in self.objectives):
            sets = sum(not is_pairs(folder / f"flow-seed-{seed}" / "pairs") for seed in self.seeds)
            needed = 4 * self.pairs * (2 * math.prod(base.model.shape) + 1) * sets
            place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
            free = shutil.disk_usage(place).free
            if needed > free:
                raise InputError(
                    f"--pairs {self.pairs} take {needed / 1e9:.1f} GB over all seeds, but {place} has "
                    f"{free / 1e9:.1f} GB left: make fewer, or choose another --out."
                )

    def settings(self) -> dict[str, Any]:
        """What decides a method's numbers, as plain values."""
        names = ("budget", "count", "guidance", "pairs")
        return {**{name: getattr(self, name) for name in names}, "steps": list(self.steps), "base": to_json(self.base)}

    def _config(self, name: str, steps: int, seed: int, **changes: Any) -> Config:
        """The base with another objective and length; what is a share of the training's length follows it."""
        base, objective = self.base, named(name, self.base)
        # Where every stage is a training of its own, each has a cosine of its own.
        cycles = objective.num_stages if objective.restarts else 1
        warmup = min(base.optimizer.warmup_steps, max(steps // cycles, 1) // 10)
        optimizer = replace(base.optimizer, decay_steps=steps, cycles=cycles, warmup_steps=warmup)
        length: dict[str, Any] = {"max_steps": steps, "seed": seed, "optimizer": optimizer, "keep": 1}
        return replace(base, objective=objective, **length, **changes).finished()


def named(name: str, base: Config | None = None) -> Objective:
    """The objective of that name, with the settings of `base` if it is its own, and without labels if that is."""
    found = choose("objective", catalogue.OBJECTIVES, name, base and base.objective)
    return found.without_labels() if base is not None and base.objective.unconditional else found


class Result(NamedTuple):
    """What one method did in one seed: the numbers, ready for JSON, and the first images of each budget."""

    report: dict[str, Any]
    images: dict[int, np.ndarray]


def has_two_stages(name: str) -> bool:
    """Whether an objective makes something of a flow that was trained before."""
    objective = named(name)
    return objective.needs_teacher or objective.needs_pairs


def compare(comparison: Comparison, folder: Path, command: str) -> int:
    """Do what is missing in `folder`, and write the table and the pictures.

    Returns the exit status: 0, or 128 + n when stopped by signal n; then the same call goes on.
    """
    todo = [(name, seed) for seed in comparison.seeds for name in comparison.objectives]
    if not all(_read(comparison, folder, name, seed) for name, seed in todo):
        comparison.check_measurable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # What another process has in hand is passed over first, and waited for at the end.
    for wait in (False, True):
        for index, (name, seed) in enumerate(todo):
            with hold(folder / f".{name}-seed-{seed}.lock", wait) as held:
                if not held or _read(comparison, folder, name, seed):
                    continue
                Progress.say(f"run {index + 1} of {len(todo)}: {name}, seed {seed}")
                status = run(comparison, folder, name, seed, command)
                if status:
                    return status
    write_table(comparison, folder)
    return 0


def run(comparison: Comparison, folder: Path, name: str, seed: int, command: str) -> int:
    """Train and measure one method in one seed; returns the exit status of the training."""
    cost = []
    stages = comparison.stages(name, seed, folder)
    for stage, config in stages.items():
        # A flow that other methods share is trained by one process, for which the others wait.
        with hold(folder / f".{stage.name}.train.lock"):
            status = train(config, stage, command)
            if status:
                return status
            cost.append(training_cost(stage, config))
            if named(name).needs_pairs and stage is not list(stages)[-1]:
                cost.append(draw_pairs(stage, config, comparison.pairs, comparison.guidance))
    model = load(stage)
    # What the guidance of its pairs has taught a method is not to be guided again.
    guidance = 1.0 if named(name).needs_pairs else comparison.guidance
    say_if_untrained(model.objective, guidance, comparison.steps)
    found = evaluate(model, comparison.base.data, comparison.steps, comparison.count, guidance)
    report = {
        "objective": name,
        "seed": seed,
        "settings": comparison.settings(),
        **found.report,
        "meant_for": {str(steps): model.objective.supports(steps) for steps in comparison.steps},
        "images": sum(part["images"] for part in cost),
        "flops": sum(part["flops"] for part in cost),
        "seconds": sum(part["seconds"] for part in cost),
        "cost": cost,
        **provenance(command),
    }
    with whole_file(folder / f"{name}-seed-{seed}.npz") as aside, aside.open("wb") as file:
        np.savez(file, steps=list(found.samples), samples=np.stack(list(found.samples.values())))
    write_json(folder / f"{name}-seed-{seed}.json", report)
    return 0


def training_cost(folder: Path, config: Config) -> dict[str, Any]:
    """Images, arithmetic (counted) and time (at the rate last measured) of a complete run."""
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    images = config.max_steps * config.batch_size
    return {
        "what": f"training {folder.name}",
        "images": images,
        "flops": config.max_steps * step_flops(config),
        "seconds": images / json.loads(rows[-1])["images_per_second"],
    }


def draw_pairs(flow: Path, config: Config, count: int, guidance: float) -> dict[str, Any]:
    """Make reflow's pairs with a trained flow, and say what they cost; they are no training images."""
    model = load(flow)
    about = {"run": str(flow.absolute()), "run_step": model.step, "weights": "ema"}
    make_pairs(
        model,
        flow / "pairs",
        count=count,
        steps=PAIR_STEPS,
        guidance=guidance,
        seed=config.seed,
        data=config.data,
        about=about,
        labels=default_labels(model.unconditional),
    )
    rows = (1, *model.network.shape), (1,), (1,)
    x, t, d = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in rows)
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    forward = count_flops(jax.make_jaxpr(model.network.apply)(model.params, x, t, d, label).jaxpr)
    calls = count * PAIR_STEPS * (1 if guidance == 1 else 2)
    seconds = read_about(flow / "pairs")["seconds"]
    return {"what": f"{count} pairs of {PAIR_STEPS} steps", "images": 0, "flops": calls * forward, "seconds": seconds}


def write_table(comparison: Comparison, folder: Path) -> None:
    """Write table.md, quality.png and samples.png from the JSON files of all methods and seeds."""
    found = {
        name: [_read(comparison, folder, name, seed) or {} for seed in comparison.seeds]
        for name in comparison.objectives
    }
    metric = next(iter(found[comparison.objectives[0]][0]["steps"].values()))
    with whole_file(folder / "table.md") as aside:
        aside.write_text(table(found, comparison.steps))
    first = next(iter(metric))
    lines = {name: line(reports, first, comparison.steps) for name, reports in found.items()}
    draw_quality(folder / "quality.png", lines, first, found[comparison.objectives[0]][0]["real"][first])
    pictures = {}
    for name in comparison.objectives:
        with np.load(folder / f"{name}-seed-{comparison.seeds[0]}.npz") as arrays:
            pictures[name] = dict(zip(arrays["steps"].tolist(), arrays["samples"], strict=True))
    get_view(comparison.base.data.view).draw_methods(folder / "samples.png", pictures)


def table(found: dict[str, list[dict[str, Any]]], steps: Sequence[int]) -> str:
    """A Markdown table: a row per method, a column per budget, and what the training cost.

    Of data with a held-out split, distances are told beside their ratio to that of real images of it, the last row.
    """
    first = next(iter(found.values()))[0]
    names = list(next(iter(first["steps"].values())))
    distance, agreement = names[0], next((name for name in names if name.startswith("agreement")), None)
    least = min(statistics.mean(r["flops"] / r["images"] for r in reports) for reports in found.values())
    lines = [
        f"| {distance} | " + " | ".join(f"{n} step{'s' * (n > 1)}" for n in steps) + " | arithmetic | time |",
        "|---|" + "---|" * (len(steps) + 2),
    ]
    for name, reports in found.items():
        cells = []
        for n in steps:
            cell = f"**{spread([r['steps'][str(n)][distance] for r in reports])}**"
            if all("ratio" in r for r in reports):
                cell += f", {statistics.mean(r['ratio'][str(n)][distance] for r in reports):.3g}x"
            if agreement:
                cell += f", {100 * statistics.mean(r['steps'][str(n)][agreement] for r in reports):.1f} %"
            cells.append(cell if reports[0]["meant_for"][str(n)] else f"({cell})")
        work = statistics.mean(r["flops"] / r["images"] for r in reports) / least
        seconds = statistics.mean(r["seconds"] for r in reports)
        duration = f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {work:.2f} | {duration} |")
    if "ratio" in first:
        share = f", {100 * first['real'][agreement]:.1f} %" if agreement else ""
        real = [f"**{spread([first['real'][distance]])}**, 1x{share}", *[""] * (len(steps) - 1)]
        lines.append("| real images | " + " | ".join(real) + " | | |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds, to three significant digits of the mean."""
    mean = statistics.mean(values)
    deviation = f" ± {rounded(statistics.stdev(values), 0, like=mean)}" if len(values) > 1 else ""
    return f"{rounded(mean, 0)}{deviation}"


def line(reports: list[dict[str, Any]], metric: str, steps: Sequence[int]) -> Line:
    """The quality of a method against steps, from its reports of all seeds."""
    values = [[r["steps"][str(n)][metric] for r in reports] for n in steps]
    return Line(list(steps), values, [reports[0]["meant_for"][str(n)] for n in steps])


def _read(comparison: Comparison, folder: Path, name: str, seed: int) -> dict[str, Any] | None:
    """A method's JSON file, if it is there and was measured with these settings."""
    path = folder / f"{name}-seed-{seed}.json"
    try:
        report = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): remove it, and it will be measured again.") from error
    return report if report["settings"] == comparison.settings() else None
