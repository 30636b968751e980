"""`shortcut figures RUN`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models import catalogue
from shortcut_models.cli import parsing


@dataclass(frozen=True)
class Figures:
    """Draw the figures that people look at, as RUN/figures/NAME.png, replacing earlier ones.

    Those that cannot be drawn are left out with a sentence each. docs/figures.md says how to read them.

    A model folder may stand for the run, and so may a model's owner/name on the hub, whose figures/ is in the
    working directory.
    """

    run: Path
    """Run folder that `shortcut train` wrote."""
    names: str = ""
    """Which ones, separated by commas. By default all."""
    steps: int = 4
    """Network calls per sample, of the figures that show one budget."""
    count: int | None = None
    """Samples in a row, or points in a panel; by default as many as are readable. The figure budgets has 16 at most."""
    guidance: float = 1.0
    """Push towards the label; 1 is none."""
    seed: int = 0
    """Of noise and examples."""
    weights: Literal["ema", "raw"] = "ema"
    """Averaged over training (ema), or the last ones (raw)."""


def run(words: list[str]) -> int:
    """Draw, and say what was left out and why."""
    if parsing.wants_help(words):
        names = "\n".join(parsing.entry(name, entry.about) for name, entry in catalogue.FIGURES.items())
        print(f"{parsing.usage(Figures, 'figures')}\n\nThe figures are\n\n{names}")
        return 0
    given = parsing.parse(Figures, "figures", words)
    names = tuple(given.names.split(",")) if given.names else None
    for name in names or ():
        catalogue.check("figure", catalogue.FIGURES, name)

    from shortcut_models.figures import Given, check
    from shortcut_models.figures.folder import draw_folder
    from shortcut_models.weights import folder_of, load

    place = folder_of(given.run)
    wish = Given(
        model=load(given.run, given.weights),
        run=place,
        count=given.count,
        steps=given.steps,
        seed=given.seed,
        guidance=given.guidance,
    )
    if names is not None:
        check(wish, names)
    drawn = draw_folder(wish, place / "figures", names, parsing.command_line("figures", words), progress=True)
    for name, reason in drawn.left_out.items():
        print(f"{name} is left out: {reason}")
    for path in drawn.paths:
        print(path)
    return 0
