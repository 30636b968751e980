"""Pictures of a trained model and of its training; each kind is a file, and a line in the catalogue."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from shortcut_models import catalogue
from shortcut_models.errors import InputError
from shortcut_models.figures.base import Figure, Given
from shortcut_models.figures.interpolation import draw_interpolation
from shortcut_models.figures.quality import Line, draw_quality
from shortcut_models.model import Model

__all__ = ["Figure", "Given", "Line", "draw", "draw_figures", "draw_interpolation", "draw_quality", "left_out"]


def draw_figures(
    model: Model,
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    run: Path | None = None,
    count: int | None = None,
    steps: int = 4,
    seed: int = 0,
    guidance: float = 1.0,
    progress: bool = False,
) -> list[Path]:
    """Write figures of a model as `folder`/NAME.png, and return their paths; the same every time for the same seed.

    Args:
        model: A trained model, or one in training.
        folder: Where to; made if it is not there, and what is there of these names is replaced.
        names: Figures of the catalogue; by default all that can be drawn, see `left_out`.
        run: The run folder, whose metrics.jsonl the learning curves are drawn from.
        count: Samples in a row, or points in a panel; by default as many as are readable.
        steps: Network calls per sample, of the figures that show one budget.
        seed: Of noise and examples.
        guidance: Push towards the label; 1 is none.
        progress: Whether to show a bar.

    Raises:
        InputError: A name is unknown or cannot be drawn, or the model cannot be sampled with these settings.
    """
    given = Given(model=model, run=run, count=count, steps=steps, seed=seed, guidance=guidance)
    if names is None:
        missing = left_out(given)
        names = [name for name in catalogue.FIGURES if name not in missing]
    else:
        check(given, names)
    return list(draw(given, folder, names, progress))


def check(given: Given, names: Sequence[str]) -> None:
    """Raise InputError, saying why, if one of these figures cannot be drawn."""
    for name, reason in left_out(given, names).items():
        raise InputError(f"figure {name} cannot be drawn: {reason}")


def left_out(given: Given, names: Sequence[str] | None = None) -> dict[str, str]:
    """Which of the figures, by default of all, cannot be drawn, and why, a sentence each."""
    reasons = {name: find(name).lacks(given) for name in (catalogue.FIGURES if names is None else names)}
    return {name: reason for name, reason in reasons.items() if reason}


def draw(given: Given, folder: Path, names: Sequence[str], progress: bool = False) -> Iterator[Path]:
    """Write these figures, all of which can be drawn, one after the other."""
    with tqdm(names, unit="figure", disable=not progress, leave=False) as bar:
        for name in bar:
            bar.set_description(f"drawing {name}")
            path = folder / f"{name}.png"
            find(name).draw(given, path)
            yield path


def find(name: str) -> Figure:
    """The figure of that name; raises InputError, listing the names, if there is none."""
    return catalogue.find("figure", catalogue.FIGURES, name)
