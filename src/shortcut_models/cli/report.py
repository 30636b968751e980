"""`shortcut report RUN`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models import catalogue
from shortcut_models.cli import parsing


@dataclass(frozen=True)
class Report:
    """Put figures, numbers, settings and their origin on one page, RUN/report.html, which needs no network.

    Numbers are those that `shortcut evaluate` wrote. Figures that are missing, or older than the weights, are
    drawn first, as `shortcut figures RUN` does.

    A model folder may stand for the run.
    """

    run: Path
    """Run folder that `shortcut train` wrote."""
    draw: bool = True
    """Draw figures that are missing or old."""
    weights: Literal["ema", "raw"] = "ema"
    """Of those figures: averaged over training (ema), or the last ones (raw)."""


def run(words: list[str]) -> int:
    """Draw what is missing, and write the page."""
    if parsing.wants_help(words):
        print(parsing.usage(Report, "report"))
        return 0
    given = parsing.parse(Report, "report", words)

    from shortcut_models.report import read_subject, write_report

    subject = read_subject(given.run)
    notes = _draw(given, subject.step) if given.draw else []
    for note in notes:
        print(note)
    print(write_report(given.run, parsing.command_line("report", words), notes))
    return 0


def _draw(given: Report, step: int) -> list[str]:
    """Draw what is missing; returns a sentence if the model cannot be loaded."""
    from shortcut_models.errors import InputError
    from shortcut_models.figures import Given
    from shortcut_models.figures.folder import draw_folder, read_folder
    from shortcut_models.model_folder import is_model_folder
    from shortcut_models.weights import load

    place = given.run / "figures"
    about = read_folder(place)
    # A model folder holds one set of weights, whatever is asked for; learning curves are of none.
    kept = ("step",) if is_model_folder(given.run) else ("step", "weights")
    wanted = {"step": step, "weights": given.weights}

    def stale(name: str) -> bool:
        known = about["figures"].get(name, {})
        same = ("step",) if name == "curves" else kept
        return not (place / f"{name}.png").exists() or any(known.get(part) != wanted[part] for part in same)

    names = [name for name in catalogue.FIGURES if stale(name)]
    if not set(names) - set(about["left_out"]):
        return []
    try:
        model = load(given.run, given.weights)
    except InputError as error:
        return [f"No figures of the model could be drawn: {error}"]
    raw = " --weights raw" if given.weights == "raw" else ""
    command = parsing.command_line("figures", [str(given.run)]) + raw
    draw_folder(Given(model=model, run=given.run), place, names, command, progress=True)
    return []
