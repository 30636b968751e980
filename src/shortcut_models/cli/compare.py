"""`shortcut compare PRESET`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_models import catalogue
from shortcut_models.cli import parsing, settings
from shortcut_models.errors import InputError

HELP = """\
usage: shortcut compare PRESET [--objectives A,B,...] [--steps 1,4,128] [--seeds 3] [--SETTING VALUE ...]

Train each objective on equally many examples with the data, network and optimiser of PRESET, measure
it, and write table.md, quality.png and samples.png. A method in two stages pays for both. Run again,
the same command continues; two that are started on one folder share the work.

{options}
  --SETTING VALUE             Change a setting of the preset for all, such as --model.hidden-size 96.

`shortcut compare PRESET --help` lists every setting with its value. The presets:

{presets}

The objectives:

{objectives}
"""


@dataclass(frozen=True)
class Compare:
    """What of a comparison is no setting of the trainings."""

    objectives: str = ""
    """Names, separated by commas. By default all, and of the official code's recipes shortcut-original alone."""
    steps: str = "1,4,128"
    """Step budgets to measure, separated by commas."""
    seeds: str = "3"
    """How many seeds; or the seeds themselves, separated by commas (5, for one alone)."""
    budget: int | None = None
    """Examples that each method may see in training, over all its stages; by default the preset's."""
    count: int = 1000
    """Samples per step budget to measure by."""
    guidance: float = 1.0
    """Guidance scale of sampling; 1 is none."""
    pairs: int = 10_000
    """Pairs that reflow learns from."""
    out: Path | None = None
    """Folder for the runs, the table and the pictures; by default runs/compare-PRESET."""


OURS = {
    "max_steps": "use --budget",
    "seed": "use --seeds",
    "start_from": "use --objectives",
    "objective": "use --objectives",
    "keep": "it keeps the last checkpoint of each training",
    "optimizer.decay_steps": "it is the length of each training, which --budget gives",
    "optimizer.cycles": "each stage of a method has one",
}
"""Flags that a comparison sets itself, and what to do instead."""


MOST_SEEDS = 1000
"""Trainings of a method, far beyond what anybody compares: more is a seed that was meant."""


def run(words: list[str]) -> int:
    """Compare, and print the table."""
    if parsing.wants_help(words):
        return _help([word for word in words if word not in parsing.HELP])
    line = parsing.split(words)
    preset = settings.check_preset(line.arguments, "compare")
    for name, instead in OURS.items():
        if name in line.flags:
            raise InputError(f"{parsing.flag(name)} is set by the comparison itself: {instead}.")
    options = parsing.override(Compare(), line)
    steps, seeds = parsing.whole_numbers("steps", options.steps, 1), _seeds(options.seeds)
    objectives = _objectives(options.objectives)
    base = settings.resolve(preset, line, list(parsing.settings(Compare)))

    from shortcut_models.compare import Comparison, compare

    comparison = Comparison(
        base=base,
        objectives=objectives,
        steps=steps,
        seeds=seeds,
        budget=options.budget if options.budget is not None else base.max_steps * base.batch_size,
        count=options.count,
        guidance=options.guidance,
        pairs=options.pairs,
    )
    out = options.out or Path("runs") / f"compare-{preset.replace('/', '-')}"
    status = compare(comparison, out, parsing.command_line("compare", words))
    if not status:
        print((out / "table.md").read_text() + f"\nin {out}: table.md, quality.png, samples.png")
    return status


def _objectives(text: str) -> tuple[str, ...]:
    names = text.split(",") if text else [name for name, entry in catalogue.OBJECTIVES.items() if entry.compared]
    for name in names:
        catalogue.check("objective", catalogue.OBJECTIVES, name)
    return tuple(names)


def _seeds(text: str) -> tuple[int, ...]:
    """A number of seeds, or the seeds themselves if there is a comma."""
    if "," in text:
        return parsing.whole_numbers("seeds", text, 0)
    number = parsing.whole_numbers("seeds", text, 1)[0]
    if number > MOST_SEEDS:
        raise InputError(f"--seeds {number} asks for {number} trainings of each method: at most {MOST_SEEDS}.")
    return tuple(range(number))


def _help(words: list[str]) -> int:
    line = parsing.split(words)
    if not line.arguments:
        parts: dict[str, Any] = {
            "options": parsing.describe(parsing.settings(Compare)),
            "presets": settings.preset_list(),
            "objectives": settings.name_list(catalogue.OBJECTIVES),
        }
        print(HELP.format(**parts), end="")
        return 0
    preset = settings.check_preset(line.arguments, "compare")
    shown = settings.describe(settings.choose(preset, line))
    print(f"usage: shortcut compare {preset} [--objectives A,B,...] [--SETTING VALUE ...]\n")
    print(parsing.describe(parsing.settings(Compare)), end="\n\n")
    print(shown)
    return 0
