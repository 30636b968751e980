"""`shortcut evaluate RUN`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shortcut_models import catalogue
from shortcut_models.cli import parsing
from shortcut_models.errors import InputError


@dataclass(frozen=True)
class Evaluate:
    """Measure a run at several step budgets, and draw them side by side.

    Writes report.json and samples.png into the run folder, replacing those of an earlier evaluation,
    and prints the table.

    A model folder may stand for the run.
    """

    run: Path
    """Run folder that `shortcut train` wrote."""
    steps: str = "1,2,4,8,128"
    """Step budgets, separated by commas."""
    count: int = 1000
    """Samples per budget; the number is part of each metric's name."""
    metrics: str = ""
    """Names of metrics, separated by commas. By default those of the data set."""
    labels: Literal["", "balanced", "random", "none"] = ""
    """Classes in turn (balanced), drawn (random), or none. By default as the metrics want them, or none for a run
    that was trained without labels."""
    guidance: float = 1.0
    """Push towards the label; 1 is none."""
    seed: int = 0
    """Of the noise, which all budgets share."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    stats: Path | None = None
    """Reference statistics (.npz) for the FIDs: ours of `shortcut stats`, the original's or ADM's. By default they
    are computed from the data set."""
    stats_protocol: Literal["", "paper", "adm", "clean"] = ""
    """Under which protocol foreign statistics were made; files of ours say so themselves."""
    inception: Path | None = None
    """Weights of the Inception network of 2015-12-05; by default SHORTCUT_INCEPTION, or the hub's cache."""
    any_inception: bool = False
    """Take an Inception file with another hash than the published one."""
    out: Path | None = None
    """Where the numbers go, a .json; by default report.json in the run folder."""


def run(words: list[str]) -> int:
    """Measure, unless that was done before with the same settings; print the table."""
    if parsing.wants_help(words):
        print(parsing.usage(Evaluate, "evaluate"))
        return 0
    given = parsing.parse(Evaluate, "evaluate", words)
    budgets = parsing.whole_numbers("steps", given.steps, 1)
    if len(set(budgets)) < len(budgets):
        raise InputError(f"--steps {given.steps} names a budget twice: name each once.")

    from shortcut_models.evaluate import read_report, table
    from shortcut_models.provenance import provenance
    from shortcut_models.weights import load

    names = given.metrics.split(",") if given.metrics else None
    for name in names or ():
        catalogue.check("metric", catalogue.METRICS, name)
    model = load(given.run, given.weights)
    labels = given.labels or ("none" if model.unconditional else None)
    protocol = {
        "step": model.step,
        "weights": given.weights,
        "guidance": given.guidance,
        "metrics": names,
        "labels": labels,
        "count": given.count,
        "seed": given.seed,
        "budgets": list(budgets),
        "stats": None if given.stats is None else str(given.stats.absolute()),
        "stats_protocol": given.stats_protocol or None,
        "any_inception": given.any_inception,
    }
    report, picture = given.out or given.run / "report.json", given.run / "samples.png"
    known = read_report(report)
    if known is not None and known.get("protocol") == protocol and picture.exists():
        print("measured before, with the same settings:")
    else:
        found = _measure(model, given, picture, protocol)
        known = {"protocol": protocol, **found, **provenance(parsing.command_line("evaluate", words))}
        _write(report, known)
    print(table(known))
    print(f"the samples: {picture}\nthe numbers: {report}")
    return 0


def _measure(model: Any, given: Evaluate, picture: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """The numbers; draws the picture. Killed, it goes on where it was."""
    from shortcut_models.evaluate import evaluate
    from shortcut_models.views import get_view

    data = model.data
    found = evaluate(
        model,
        data,
        protocol["budgets"],
        protocol["count"],
        protocol["guidance"],
        protocol["seed"],
        metrics=protocol["metrics"],
        labels=protocol["labels"],
        inception=given.inception,
        any_inception=given.any_inception,
        stats=given.stats,
        stats_protocol=protocol["stats_protocol"],
        resume=given.run / ".evaluate",
        model_key=f"{model.step}-{model.weights}",
    )
    view = get_view(data.view)
    # Only balanced labels go through the classes in order, so that the first samples are one of each.
    names = data.class_names if found.report["about"]["labels"] == "balanced" else None
    view.draw_budgets(picture, found.samples, names, view.examples(data))
    return found.report


def _write(path: Path, report: dict[str, Any]) -> None:
    from shortcut_models.files import write_json

    write_json(path, report)
