"""A folder of figures, with figures.json, which says of each how it was drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shortcut_models import catalogue
from shortcut_models.evaluate import read_report
from shortcut_models.figures import draw, left_out
from shortcut_models.figures.base import Given
from shortcut_models.files import write_json
from shortcut_models.provenance import provenance

ABOUT = "figures.json"


class Drawn(NamedTuple):
    """What came of it."""

    paths: list[Path]
    left_out: dict[str, str]
    """For figures that could not be drawn, why."""


def draw_folder(given: Given, folder: Path, names: Sequence[str] | None, command: str, progress: bool = False) -> Drawn:
    """Draw figures, by default all, and note in figures.json how; others there stay as they are.

    What cannot be drawn is left out, and figures.json says why.
    """
    reasons = left_out(given, names)
    how = {**_settings(given), **provenance(command)}
    found = read_folder(folder)
    chosen = [name for name in names or catalogue.FIGURES if name not in reasons]
    paths = []
    for path in draw(given, folder, chosen, progress):
        paths.append(path)
        # After each, so that what is there is described rightly when the rest is interrupted.
        found["figures"][path.stem] = how
        found["left_out"].pop(path.stem, None)
        write_json(folder / ABOUT, found)
    if reasons:
        found["left_out"] |= reasons
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ABOUT, found)
    return Drawn(paths, reasons)


def read_folder(folder: Path) -> dict[str, Any]:
    """figures.json: under "figures" how each was drawn, under "left_out" why not; empty if it cannot be read."""
    found = read_report(folder / ABOUT)
    if not isinstance(found, dict) or not {"figures", "left_out"} <= set(found):
        return {"figures": {}, "left_out": {}}
    return found


def _settings(given: Given) -> dict[str, Any]:
    names = ("count", "steps", "seed", "guidance")
    return {
        "step": given.model.step,
        "weights": given.model.weights,
        **{name: getattr(given, name) for name in names},
        "split": given.split,
    }
