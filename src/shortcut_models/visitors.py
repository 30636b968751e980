"""Visitors of a training: evaluation and figures."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from shortcut_models import processes
from shortcut_models.config import Config
from shortcut_models.during import During
from shortcut_models.errors import InputError, NotHereError
from shortcut_models.evaluate import Plan, check_samples, measure_model, read_report
from shortcut_models.figures import draw_figures
from shortcut_models.files import write_json
from shortcut_models.metrics.measure import check_count
from shortcut_models.metrics.references import sample_shape
from shortcut_models.metrics.yardstick import Wish, choose_yardstick
from shortcut_models.model import Model
from shortcut_models.provenance import provenance
from shortcut_models.terminal import Progress

AT = "/steps="
"""Between the name of a metric and the budget that it was measured at, in metrics.jsonl."""
GUIDED = "guided"


class Found(NamedTuple):
    """What a visit has to tell."""

    numbers: dict[str, float]
    pictures: dict[str, Path]


class Visitor(Protocol):
    """The seam: what is done with the model at intervals. Of several processes, all call it."""

    @property
    def every(self) -> int:
        """Images between visits."""
        ...

    @property
    def doing(self) -> str:
        """What it does, for people."""
        ...

    def made(self, step: int) -> bool:
        """Whether the visit of this step is finished and told."""
        ...

    def __call__(self, step: int, model: Model, stopping: Callable[[], bool]) -> Found | None:
        """Do it; None if it was stopped half-way, and is to go on later."""
        ...


def make_visitors(config: Config, during: During, folder: Path, command: str) -> list[Visitor]:
    """Those that are asked for."""
    found: list[Visitor] = []
    if during.evaluate_every or during.figures_every:
        _check_decoder(config, needed=bool(during.evaluate_every))
    if during.evaluate_every:
        found.append(Evaluations(config, during, folder, command))
    if during.figures_every:
        found.append(Figures(during.figures_every, folder))
    return found


def _check_decoder(config: Config, needed: bool) -> None:
    """Raise InputError, now and not after hours, for another VAE than that of the latents, and for none if `needed`."""
    try:
        config.data.codec.ready()
    except NotHereError as error:
        if needed:
            raise
        Progress.say(f"figures that show samples are left out: {error}")


class Evaluations:
    """Measures as `shortcut evaluate` does; the numbers of a step are a report of its own in evaluations/."""

    doing = "measuring"

    def __init__(self, config: Config, during: During, folder: Path, command: str) -> None:
        self.every, self._folder, self._command = during.evaluate_every, folder, command
        wish = Wish(
            metrics=during.metrics,
            stats=during.stats,
            stats_protocol=during.stats_protocol or None,
            inception=during.inception,
            any_inception=during.any_inception,
        )
        data, objective = config.data.shows(), config.objective
        self._yardstick = choose_yardstick(data, sample_shape(data), wish, objective.unconditional)
        check_samples("--evaluate-count", during.evaluate_count, self._yardstick.labels, config.model.num_classes)
        check_count(self._yardstick.metrics, during.evaluate_count, "samples (--evaluate-count)")
        if during.evaluate_guidance != 1 and not (objective.trains_null_label and not objective.unconditional):
            raise InputError(
                f"--evaluate-guidance is {during.evaluate_guidance}, but this training teaches no answer both with and "
                "without a label, which guidance compares: leave it at 1."
            )
        self._plans = {"": Plan(budgets=during.evaluate_steps, count=during.evaluate_count)}
        if during.evaluate_guidance != 1:
            most = (max(during.evaluate_steps),)
            self._plans[GUIDED] = Plan(budgets=most, count=during.evaluate_count, guidance=during.evaluate_guidance)

    def made(self, step: int) -> bool:
        try:
            rows = [json.loads(line) for line in (self._folder / "metrics.jsonl").read_text().splitlines()]
        except (OSError, ValueError):
            return False
        return any(row.get("step") == step and any(AT in name for name in row) for row in rows)

    def __call__(self, step: int, model: Model, stopping: Callable[[], bool]) -> Found | None:
        path, protocol = self._folder / "evaluations" / f"step-{step}.json", self._protocol(step, model)
        known = read_report(path) or {}
        report = known if known.get("protocol") == protocol else {"protocol": protocol}
        for name, plan in self._plans.items():
            if processes.from_first(np.bool_((name or "steps") in report)):
                continue
            resume, key = path.with_name(f".{path.stem}{name}"), f"{step}-{model.weights}"
            measured = measure_model(model, self._yardstick, plan, resume, key, stopping)
            if measured is None:
                return None
            report |= {name: measured.report} if name else measured.report
            if processes.is_first():
                write_json(path, report | provenance(self._command))
        return Found(_numbers(report) if processes.is_first() else {}, {})

    def _protocol(self, step: int, model: Model) -> dict[str, Any]:
        plans = {name: asdict(plan) | {"budgets": list(plan.budgets)} for name, plan in self._plans.items()}
        return {"step": step, "weights": model.weights, "plans": plans, **self._yardstick.key()}


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    """Numbers as metrics.jsonl has them: NAME/steps=4, and NAME/steps=128-guided."""
    sets = {(steps, ""): values for steps, values in report["steps"].items()}
    sets |= {(steps, f"-{GUIDED}"): values for steps, values in report.get(GUIDED, {}).get("steps", {}).items()}
    return {f"{name}{AT}{steps}{end}": value for (steps, end), values in sets.items() for name, value in values.items()}


class Figures:
    """Draws the figures of a step into a folder of its own in figures/."""

    doing = "drawing figures"

    def __init__(self, every: int, folder: Path) -> None:
        self.every, self._run = every, folder

    def _place(self, step: int) -> Path:
        return self._run / "figures" / f"step-{step}"

    def made(self, step: int) -> bool:
        return self._place(step).is_dir()

    def __call__(self, step: int, model: Model, stopping: Callable[[], bool]) -> Found | None:
        if stopping():
            return None
        if not processes.is_first():
            return Found({}, {})
        place = self._place(step)
        aside = place.with_name(f".{place.name}")
        shutil.rmtree(aside, ignore_errors=True)  # What a kill left.
        aside.mkdir(parents=True)
        drawn = draw_figures(model, aside, run=self._run)
        aside.rename(place)
        return Found({}, {path.stem: place / path.name for path in drawn})
