"""The report of a run: its figures, numbers, settings and their origin on one page of HTML.

It is made of the files in the folder alone: run.json (or a model folder's config.json), metrics.jsonl, report.json and
other evaluations, and figures/. So whatever stands in it can be looked up there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shortcut_models import catalogue, model_folder, page, runs
from shortcut_models.config_json import flatten
from shortcut_models.figures import find
from shortcut_models.figures.curves import read_metrics
from shortcut_models.figures.folder import read_folder
from shortcut_models.files import write_text
from shortcut_models.page import Html, Section

NAME = "report.html"
OWN = ("run.json", model_folder.CONFIG)
"""JSON files that are no evaluation."""
KNOWN = ("steps", "real", "ratio", "perfect", "left_out", "command")
"""Parts of an evaluation that have a place of their own."""


class Subject(NamedTuple):
    """What the report is about."""

    network: dict[str, Any]
    objective: dict[str, Any]
    shows: dict[str, Any]
    """The data that samples show."""
    step: int
    """Of the newest weights; 0 if there are none."""
    last: int
    """The step at which the training ends; 0 if nothing says."""
    settings: dict[str, Any]
    """All settings, nested."""
    starts: list[dict[str, Any]]
    """Who trained which part; [] if nothing says."""


def write_report(folder: Path, command: str, notes: Sequence[str] = ()) -> Path:
    """Write `folder`/report.html, whole or not at all, and return its path.

    Args:
        folder: A run folder or a model folder.
        command: What made the report, to be said at its end.
        notes: Sentences about what is missing, such as figures that cannot be drawn.

    Raises:
        InputError: The folder is neither, or its run.json or config.json cannot be read.
    """
    subject = read_subject(folder)
    kinds = [part.get("kind", "unknown") for part in (subject.objective, subject.shows, subject.network)]
    length = f"step {subject.step:,}" + f" of {subject.last:,}" * bool(subject.last)
    sections = [
        Section("Overview", _overview(folder, subject)),
        Section("Numbers", _numbers(folder, subject)),
        Section("Figures", _figures(folder, notes)),
        Section("Settings", [_settings(subject.settings)]),
        Section("Origin", _origin(subject)),
        Section("How to repeat", _repeat(folder, subject)),
    ]
    subtitle = f"{kinds[0]} on {kinds[1]}, network {kinds[2]}, {length}"
    write_text(folder / NAME, page.page(folder.absolute().name, subtitle, sections, f"Made by: {command}"))
    return folder / NAME


def read_subject(folder: Path) -> Subject:
    """What a folder holds; raises InputError unless it is a run folder or a model folder."""
    if model_folder.is_model_folder(folder):
        about = json.loads((folder / model_folder.CONFIG).read_text(encoding="utf-8"))
        parts = [about.get(name) or {} for name in ("network", "objective", "shows")]
        return Subject(parts[0], parts[1], parts[2], about.get("step") or 0, 0, about, [])
    found = runs.read(folder)
    runs.read_config(folder)  # Raises if it is not ours.
    config = found["config"]
    shows = found.get("shows") or config.get("data", {})
    step = runs.latest(folder) or 0
    return Subject(
        config["model"], config["objective"], shows, step, config.get("max_steps", 0), config, found["starts"]
    )


def _overview(folder: Path, subject: Subject) -> list[Html]:
    tables = (
        ("objective", subject.objective, model_folder.SAMPLED_BY),
        ("data", subject.shows, catalogue.DATA),
        ("network", subject.network, catalogue.NETWORKS),
    )
    rows = []
    for name, part, names in tables:
        kind = part.get("kind", "unknown")
        rows.append((name, f"{kind}: {names[kind].about}" if kind in names else kind))
    metrics = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    if metrics:
        # Rows of a validation or an evaluation have no errors by step size.
        last = next((row for row in reversed(metrics) if any(name.startswith("error/") for name in row)), metrics[-1])
        rows.append(("images seen", f"{last['images']:,}, as logged last at step {last.get('step', '?'):,}"))
        errors = {name.removeprefix("error/"): value for name, value in last.items() if name.startswith("error/")}
        rows.append(
            (
                "error in training",
                "; ".join(
                    f"{name.replace('<=', ' ≤ ').replace('=', ' = ')}: {value:.4g}" for name, value in errors.items()
                ),
            )
        )
    return [page.facts(rows)]


def _numbers(folder: Path, subject: Subject) -> list[Html]:
    parts: list[Html] = []
    for path in sorted(folder.glob("*.json")):
        if path.name in OWN:
            continue
        parts += _file(path, subject.step)
    during = _during(sorted((folder / "evaluations").glob("*.json")))
    if not parts and not during:
        return [page.text("Nothing was measured yet: "), page.code(f"shortcut evaluate {folder}")]
    return parts + during


def _file(path: Path, newest: int) -> list[Html]:
    """The section of one JSON file: an evaluation, or what is the matter with it."""
    found = _read(path)
    if found is None:
        return [page.heading(path.name), page.text("This file cannot be read: it is damaged, or no JSON object.")]
    if not is_evaluation(found):
        return []
    parts = [page.heading(path.name), *_circumstances(found, newest), _table(found)]
    if found.get("left_out"):
        parts.append(page.text(f"Left out: {found['left_out']}"))
    parts.append(page.facts(_meanings(found)))
    others = {name: value for name, value in found.items() if name not in KNOWN}
    recorded = page.facts([(name, _plain(value)) for name, value in flatten(others).items()])
    if "command" in found:
        parts.append(page.code(str(found["command"])))
    return [*parts, page.folded("all that was recorded about it", [recorded])]


def _circumstances(found: dict[str, Any], newest: int) -> list[Html]:
    """How it was measured, in a line, and whether that is of today's weights."""
    protocol = found.get("protocol") or {}
    labels = (found.get("about") or {}).get("labels") or protocol.get("labels")
    said = {
        "{:,} samples per budget": protocol.get("count"),
        "{} weights": protocol.get("weights"),
        "step {:,}": protocol.get("step"),
        "guidance {:g}": protocol.get("guidance"),
        "labels: {}": labels,
        "seed {}": protocol.get("seed"),
        "means over {} seeds from there": protocol.get("seeds") if protocol.get("seeds") != 1 else None,
    }
    line = ", ".join(form.format(value) for form, value in said.items() if value is not None)
    step = protocol.get("step")
    older = isinstance(step, int) and step < newest
    note = f" The newest weights are those of step {newest:,}, which are not what was measured." * older
    return [page.text(f"{line}.{note}")] if line else []


def is_evaluation(found: dict[str, Any]) -> bool:
    """Whether it has numbers by budget."""
    steps = found.get("steps")
    return isinstance(steps, dict) and bool(steps) and all(isinstance(row, dict) for row in steps.values())


def _table(found: dict[str, Any]) -> Html:
    """A row per budget, a column per number, with its deviation over seeds, and beside a distance its ratio to real."""
    rows = dict(found["steps"])
    if isinstance(found.get("real"), dict):
        rows["real"] = found["real"]
    if isinstance(found.get("perfect"), dict):
        rows["perfect model"] = found["perfect"]
    ratios, deviations = found.get("ratio") or {}, found.get("deviation") or {}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    compared = {name for row in ratios.values() for name in row}
    head = ["steps", *(cell for name in names for cell in (name, "/ real")[: 1 + (name in compared)])]
    lines = []
    for steps, row in rows.items():
        line = [steps]
        for name in names:
            spread = deviations.get(steps, {}).get(name)
            line.append(_number(row.get(name)) + ("" if spread is None else f" ± {_number(spread)}"))
            if name in compared:
                line.append(_number(ratios.get(steps, {}).get(name)))
        lines.append(line)
    return page.table(head, lines, numbers=True)


def _meanings(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What each number means, and what it was measured against."""
    about = found.get("about") or {}
    against = about.get("reference") or {}
    names = dict.fromkeys(name for row in found["steps"].values() for name in row)
    # Names of numbers begin with their metric's, but where one has several, such as precision and recall.
    metrics = {name: max(filter(name.startswith, catalogue.METRICS), key=len, default="") for name in names}
    metrics |= {name: name for name in about.get("metrics") or {} if name not in metrics.values()}
    rows = []
    for name, metric in metrics.items():
        if metric in catalogue.METRICS:
            reference = f"; against {against[metric]}" if metric in against else ""
            rows.append((name, f"{catalogue.METRICS[metric].about}{reference}"))
    if "real" in about:
        rows.append(("real", f"the same for {about['real']}, in place of samples"))
    if found.get("ratio"):
        rows.append(("/ real", "the number divided by that of real samples: 1 is as good as real ones"))
    if "perfect" in about:
        rows.append(("perfect model", about["perfect"]))
    return rows


def _during(paths: Sequence[Path]) -> list[Html]:
    """Evaluations at intervals of the training in one table, a row each."""
    found = {path: report for path in paths if (report := _read(path)) and is_evaluation(report)}
    if not found:
        return []
    rows = []
    for path, report in found.items():
        values = {f"{name}, {n} st.": value for n, row in report["steps"].items() for name, value in row.items()}
        step = (report.get("protocol") or {}).get("step", path.stem)
        rows.append((step, values))
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    rows.sort(key=lambda row: row[0] if isinstance(row[0], int) else 0)
    lines = [[_plain(step), *(_number(values.get(name)) for name in names)] for step, values in rows]
    return [page.heading("In training (evaluations/)"), page.table(["step", *names], lines, numbers=True)]


def _figures(folder: Path, notes: Sequence[str]) -> list[Html]:
    place = folder / "figures"
    about = read_folder(place)
    parts: list[Html] = [page.text(note) for note in notes]
    for name, entry in catalogue.FIGURES.items():
        path = place / f"{name}.png"
        if path.exists():
            how = about["figures"].get(name, {})
            drawn = f" Drawn at step {how['step']:,}." if "step" in how else ""
            parts.append(page.picture(path, entry.about.capitalize(), find(name).how + drawn))
        elif name in about["left_out"]:
            parts.append(page.text(f"{entry.about.capitalize()}: left out, for {about['left_out'][name]}"))
    samples = folder / "samples.png"
    if samples.exists():
        parts.append(
            page.picture(samples, "Samples of the evaluation", "The first samples of each budget in report.json.")
        )
    earlier = sorted(path.name for path in place.glob("step-*") if path.is_dir())
    if earlier:
        parts.append(page.text(f"Drawn in training, in the folder figures: {', '.join(earlier)}."))
    return parts or [page.text("There are none yet: "), page.code(f"shortcut figures {folder}")]


def _settings(settings: dict[str, Any]) -> Html:
    """A table for each part of the settings."""
    whole = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    parts = {"general": whole, **{name: value for name, value in settings.items() if isinstance(value, dict)}}
    tables = [
        (part, page.facts([(name, _plain(value)) for name, value in flatten(values).items()]))
        for part, values in parts.items()
        if values
    ]
    return page.beside(tables)


def _origin(subject: Subject) -> list[Html]:
    if not subject.starts:
        return [page.text("Nothing is recorded of the training but what stands under Settings.")]
    names = ("step", "time", "device", "host", "commit", "command")
    rows = [[_plain(begin.get(name)) for name in names] for begin in subject.starts]
    versions = subject.starts[-1].get("versions") or {}
    return [
        page.text("Each row trained the steps from its own to that of the next; + behind a commit: with changes."),
        page.table(["from step", *names[1:]], rows),
        page.heading("Versions, of the last"),
        page.facts([(name, _plain(value)) for name, value in versions.items()]),
    ]


def _repeat(folder: Path, subject: Subject) -> list[Html]:
    """Every command, in order, with what it made and where."""
    made = [(f"training from step {begin.get('step')}", begin) for begin in subject.starts]
    for path in [*sorted(folder.glob("*.json")), *sorted((folder / "evaluations").glob("*.json"))]:
        found = _read(path)
        if path.name not in OWN and found and is_evaluation(found):
            made.append((str(path.relative_to(folder)), found))
    made += [(f"figures/{name}.png", how) for name, how in read_folder(folder / "figures")["figures"].items()]
    commands: dict[tuple[str, ...], list[str]] = {}
    for what, how in made:
        if how.get("command"):
            key = tuple(_plain(how.get(name)) for name in ("command", "commit", "device"))
            commands.setdefault(key, []).append(what)
    if not commands:
        return [page.text("No command is recorded.")]
    parts = [page.text("Samples depend on the seed alone, up to rounding, which differs between devices.")]
    for (command, commit, device), results in commands.items():
        parts += [page.text(f"{', '.join(results)} (commit {commit[:12]}, {device}):"), page.code(command)]
    return parts


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return {"None": "none", "True": "yes", "False": "no", "": "none"}.get(str(value), str(value))
