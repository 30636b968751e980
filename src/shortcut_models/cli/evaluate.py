"""`shortcut evaluate TARGET`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shortcut_models import catalogue
from shortcut_models.cli import parsing
from shortcut_models.errors import InputError

SAMPLES = 1000
"""Drawn of a model by default."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a model at several step budgets, and draw them side by side; or measure images that are there.

    Of a run it writes report.json and samples.png into its folder, replacing those of an earlier evaluation. It
    prints the table. Killed, the same command goes on where it was.
    """

    target: str
    """A run folder, a model folder, a checkpoint of the official code or a model's owner/name on the hub; or images: a
    folder, a zip, an .npz, or any data set by name or path."""
    steps: str = "1,2,4,8,128"
    """Step budgets of a model, separated by commas."""
    count: int | None = None
    """Samples per budget, by default 1000; or how many of the images, drawn by the seed, by default all. The number is
    part of each metric's name."""
    protocol: str = ""
    """fid-paper, fid-adm or fid-clean: FID as the paper's code, ADM's evaluator or clean-fid compute it, and of
    fid-adm what is published beside it: sFID, Inception score, precision and recall."""
    metrics: tuple[str, ...] = ()
    """Names of metrics instead, separated by commas. By default those of the data set."""
    stats: Path | None = None
    """Reference statistics (.npz) for the FIDs: ours of `shortcut stats`, the original's or ADM's. By default they
    are computed from the data set."""
    stats_protocol: Literal["", "paper", "adm", "clean"] = ""
    """Under which protocol foreign statistics were made, if --protocol does not say; ours say it themselves."""
    data: str = ""
    """Real images to compare with, by name or path; by default those that the model was trained on."""
    labels: Literal["", "balanced", "random", "data", "none"] = ""
    """Classes in turn (balanced), drawn (random), in the proportions of the data compared with (data), or none. By
    default as the metrics' protocols have them, or none for a model that was trained without labels."""
    guidance: float = 1.0
    """Push towards the label; 1 is none."""
    seed: int = 0
    """Of the noise, which all budgets share."""
    seeds: int = 1
    """Sets of samples, of this seed and those that follow; numbers are their means, beside the deviation."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""
    split: str = ""
    """Split of the images to measure; by default the first."""
    inception: Path | None = None
    """Weights of the Inception network of 2015-12-05; by default SHORTCUT_INCEPTION, or the hub's cache."""
    any_inception: bool = False
    """Take an Inception file with another hash than the published one."""
    out: Path | None = None
    """Where the numbers go, a .json, with the picture of a model's samples beside it; by default report.json and
    samples.png in the run folder, and nowhere for images."""


OF_MODELS = ("steps", "labels", "guidance", "seeds", "weights")
OF_IMAGES = ("split",)


def run(words: list[str], model: Any = None) -> int:
    """Measure, unless that was done before with the same settings; print the table.

    `model` is the one that the words name, if it is loaded already.
    """
    if parsing.wants_help(words):
        print(parsing.usage(Evaluate, "evaluate"))
        return 0
    given = parsing.parse(Evaluate, "evaluate", words)
    budgets = parsing.whole_numbers("steps", given.steps, 1)
    if len(set(budgets)) < len(budgets):
        raise InputError(f"--steps {given.steps} names a budget twice: name each once.")
    for name in given.metrics:
        catalogue.check("metric", catalogue.METRICS, name)
    if given.out is not None and given.out.suffix != ".json":
        raise InputError(f"--out {given.out} must end in .json.")

    from shortcut_models import startup
    from shortcut_models.evaluate import find_images, read_report
    from shortcut_models.weights import load

    if given.out is not None and given.out.exists() and "protocol" not in (read_report(given.out) or {}):
        raise InputError(f"{given.out} is there and is no report of ours: choose another --out, or remove it.")
    startup.start_processes()
    images = None if model else find_images(given.target)
    kind, others = ("images", OF_MODELS) if images else ("a model", OF_IMAGES)
    wrong = [name for name in parsing.split(words, ["any_inception"]).flags if name in others]
    if wrong:
        raise InputError(f"{parsing.flag(wrong[0])} does not go with {given.target}, which is {kind}: leave it out.")
    command = parsing.command_line("evaluate", words)
    if images:
        return _measure_images(images, given, command)
    return _measure_model(model or load(given.target, given.weights), given, budgets, command)


def _wish(given: Evaluate, **changes: Any) -> Any:
    from shortcut_models.metrics.yardstick import Wish

    same = {name: getattr(given, name) for name in ("metrics", "protocol", "stats", "inception", "any_inception")}
    return Wish(**same, stats_protocol=given.stats_protocol or None, **changes)


def _measure_model(model: Any, given: Evaluate, budgets: tuple[int, ...], command: str) -> int:
    from shortcut_models import processes
    from shortcut_models.data import choose
    from shortcut_models.evaluate import Plan, measure_model
    from shortcut_models.metrics.references import sample_shape
    from shortcut_models.metrics.yardstick import choose_yardstick
    from shortcut_models.outputs import say_if_untrained
    from shortcut_models.views import get_view
    from shortcut_models.weights import folder_of

    folder = folder_of(given.target)
    report = given.out or folder / "report.json"
    picture = given.out.with_suffix(".png") if given.out else folder / "samples.png"
    resume = given.out.with_name(f".{given.out.stem}-evaluation") if given.out else folder / ".evaluate"
    data = choose(given.data) if given.data else model.data
    wish = _wish(given, labels=given.labels or None)
    yardstick = choose_yardstick(data, sample_shape(model.data.shows()), wish, model.unconditional)
    numbers = {name: getattr(given, name) for name in ("guidance", "seed", "seeds")}
    plan = Plan(budgets=budgets, count=SAMPLES if given.count is None else given.count, **numbers)
    model.check_guidance(given.guidance)
    say_if_untrained(model.objective, given.guidance, budgets)
    fingerprint = model.fingerprint()
    protocol = {
        "target": given.target,
        "model": fingerprint,
        "step": model.step,
        "weights": model.weights,
        "budgets": list(budgets),
        "count": plan.count,
        **numbers,
        "labels": yardstick.labels,
        **yardstick.key(),
    }

    def measure() -> dict[str, Any]:
        found = measure_model(model, yardstick, plan, resume, fingerprint)
        assert found is not None, "nobody asked it to stop"
        if not processes.is_first():
            return {}
        view = get_view(model.data.view)
        # Only balanced labels go through the classes in order, so that the first samples are one of each.
        names = model.data.class_names if yardstick.labels == "balanced" else None
        view.draw_budgets(picture, found.samples, names, view.examples(model.data))
        return found.report

    if _tell(report, protocol, measure, command, needs=(picture,)):
        print(f"the samples: {picture}\nthe numbers: {report}")
    return 0


def _measure_images(images: Any, given: Evaluate, command: str) -> int:
    from shortcut_models.data import choose
    from shortcut_models.evaluate import measure_images
    from shortcut_models.metrics.references import sample_shape
    from shortcut_models.metrics.yardstick import choose_yardstick

    data = choose(given.data) if given.data else None
    labelled = data is not None and images.num_classes == data.num_classes > 1
    yardstick = choose_yardstick(data, sample_shape(images), _wish(given), not labelled)
    resume = given.out and given.out.with_name(f".{given.out.stem}-evaluation")
    asked = {"count": given.count, "seed": given.seed, "split": given.split or None}
    protocol = {"target": given.target, "images": images.identity(), **asked, **yardstick.key()}

    def measure() -> dict[str, Any]:
        return measure_images(images, yardstick, given.count, given.seed, given.split or None, resume)

    if _tell(given.out, protocol, measure, command) and given.out:
        print(f"the numbers: {given.out}")
    return 0


def _tell(
    path: Path | None, protocol: dict[str, Any], measure: Any, command: str, needs: tuple[Path, ...] = ()
) -> bool:
    """Print the table, and write the report to `path`; measured only if it does not hold the same already.

    Of several processes the first does so; returns whether this is it.
    """
    import numpy as np

    from shortcut_models import processes
    from shortcut_models.evaluate import read_report, table
    from shortcut_models.files import write_json
    from shortcut_models.provenance import provenance

    known = (read_report(path) if path is not None and path.exists() else None) or {}
    done = known.get("protocol") == protocol and all(place.exists() for place in needs)
    done = bool(processes.from_first(np.bool_(done)))
    found = {} if done else measure()
    if not processes.is_first():
        return False
    if done:
        print("measured before, with the same settings:")
    else:
        known = {"protocol": protocol, **found, **provenance(command)}
        if path is not None:
            write_json(path, known)
    print(table(known))
    return True
