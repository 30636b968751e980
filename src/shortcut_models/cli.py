"""The command `shortcut`: a thin layer that reads arguments, calls the package and prints.

Imports that take time stay inside the commands, so that --help answers at once.
"""

import dataclasses
import difflib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagConversionOff, Positional, arg

from shortcut_models import startup
from shortcut_models.errors import InputError

COMPUTING = ("train", "sample", "evaluate", "compare", "pairs")

HELP = """\
usage: shortcut COMMAND ...

Generative models that need one network call per image, and get better with more calls.

  train PRESET      train a model in a run folder, or continue one
  sample RUN        draw images from a trained run in any number of steps
  evaluate RUN      measure a run at several step budgets, and draw them side by side
  compare DATASET   train and measure several objectives on an equal budget
  pairs RUN         draw pairs of noise and sample, the data set of reflow
  presets [PRESET]  list the recipes, or show all settings of one

`shortcut COMMAND --help` explains a command. A first run, a few minutes on a CPU:

  shortcut train digits --run-dir runs/digits
  shortcut evaluate runs/digits
"""

TRAIN_HELP = """\
usage: shortcut train PRESET [--run-dir DIR] [--dry-run] [--SETTING VALUE ...]

Train PRESET in DIR (default: runs/PRESET). Run again, the same command continues an unfinished run
from its last checkpoint. Ctrl-C saves and stops.

  --dry-run           print shapes, parameters, memory and FLOPs per step, and stop
  --objective NAME    train with another objective:
                      {objectives}
  --start-from RUN    start from the weights of another run: the teacher of a method that distils
  --SETTING VALUE     change a setting of the preset, such as --max-steps 500 or
                      --model.hidden-size 96; `-` and `_` are alike, and the official code's
                      names are understood too (--model.lr, --model.bootstrap_every, ...)

`shortcut train PRESET --help` lists every setting with its value in that preset. The presets:

{presets}
"""


COMPARE_HELP = """\
usage: shortcut compare DATASET [--objectives A,B,...] [--steps 1,4,128] [--seeds 3] [--budget IMAGES]

Train each objective on equally many images with the network and optimiser of the preset DATASET,
measure it, and write table.md, quality.png and samples.png. A method in two stages pays for both.
Run again, the same command continues; started twice, the two share the work.

  --objectives NAMES  separated by commas:
                      {objectives}
  --steps STEPS       step budgets to measure
  --seeds NUMBER      how many seeds; or the seeds themselves, separated by commas (5, for one alone)
  --budget IMAGES     images that each method may see in training (default: the preset's)
  --count IMAGES      images per step budget to measure by (1000)
  --out DIR           folder of the comparison (runs/compare-DATASET)
  --SETTING VALUE     change a setting of the preset for all, such as --model.hidden-size 96

`shortcut compare DATASET --help` lists every setting with its value. The presets:

{presets}
"""


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 128 + n when stopped by signal n.

    Without `words` this is the program itself, which settles first how memory and compiled programs are kept.
    """
    if words is None:
        words = sys.argv[1:]
        if words and words[0] in COMPUTING:
            startup.prepare()
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sample": lambda rest: _tyro(sample, "sample", rest),
        "evaluate": lambda rest: _tyro(evaluate, "evaluate", rest),
        "compare": _compare,
        "pairs": lambda rest: _tyro(pairs, "pairs", rest),
        "presets": lambda rest: _tyro(presets, "presets", rest),
    }
    try:
        if not words or words[0] in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if words[0] == "--version":
            from importlib.metadata import version

            print(f"shortcut-models {version('shortcut-models')}")
            return 0
        if words[0] not in commands:
            near = difflib.get_close_matches(words[0], commands, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(commands)}."
            raise InputError(f"command {words[0]!r} is unknown: {hint}")
        return commands[words[0]](words[1:])
    except InputError as error:
        print(f"shortcut: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("shortcut: stopped.", file=sys.stderr)
        return 130


def sample(
    run: Positional[Path],
    steps: int = 4,
    count: int = 16,
    labels: str = "balanced",
    guidance: float = 1.0,
    seed: int = 0,
    weights: Literal["ema", "raw"] = "ema",
    out: Path | None = None,
) -> int:
    """Draw images from a trained run.

    Args:
        run: Run folder that `shortcut train` wrote.
        steps: Network calls per image, any whole number from 1 up; more is better and slower.
        count: Number of images.
        labels: "balanced" goes through the classes in turn, "random" draws them; or the classes to
            go through, such as 0,1,2.
        guidance: Push towards the label: 1 is none, 1.5 to 4 is usual; doubles the cost.
        seed: Image i depends on the seed and i alone, so other settings can be compared on it.
        weights: Averaged over training (ema), or the last ones (raw).
        out: FILE.png for one picture with all, FILE.npz for the arrays `images` (uint8) and
            `labels`, or a folder to fill with PNGs. Must not exist. Default: a PNG in the run folder.
    """
    from shortcut_models import outputs, runs
    from shortcut_models.data.pipeline import to_uint8

    runs.read(run)
    if out is None:
        out = run / f"sample-{steps}-steps-seed-{seed}.png"
    outputs.check_new(out)
    if count < 1:
        raise InputError(f"count is {count}, but at least 1 image must be drawn.")
    if steps < 1:
        raise InputError(f"steps is {steps}, but sampling takes at least 1 step.")
    model = runs.load(run, weights)
    chosen = outputs.choose_labels(labels, count, model.num_classes, seed)
    images = to_uint8(model.sample(chosen, steps, guidance, seed, progress=count > 256))
    outputs.write_images(out, images, chosen)
    print(f"{count} images in {steps} step{'s' * (steps > 1)}: {out}")
    return 0


def evaluate(
    run: Positional[Path],
    steps: str = "1,2,4,8,128",
    count: int = 1000,
    guidance: float = 1.0,
    seed: int = 0,
    weights: Literal["ema", "raw"] = "ema",
) -> int:
    """Measure a run at several step budgets and draw them side by side.

    Writes report.json and samples.png into the run folder, replacing those of an earlier
    evaluation, and prints the table.

    Args:
        run: Run folder that `shortcut train` wrote.
        steps: Step budgets, separated by commas.
        count: Images per budget, with balanced labels; the number is part of each metric's name.
        guidance: Push towards the label; 1 is none.
        seed: Of the noise, which all budgets share.
        weights: Averaged over training (ema), or the last ones (raw).
    """
    from shortcut_models import runs
    from shortcut_models.data import class_names, origin
    from shortcut_models.evaluate import evaluate as measure
    from shortcut_models.evaluate import read_report, table
    from shortcut_models.files import write_json
    from shortcut_models.pictures import draw_budgets

    config = runs.read_config(run)
    budgets = list(_whole_numbers("steps", steps, 1))
    model = runs.load(run, weights)
    protocol = {
        "step": model.step,
        "weights": weights,
        "guidance": guidance,
        "labels": "balanced",
        "count": count,
        "seed": seed,
        "budgets": budgets,
    }
    report, picture = run / "report.json", run / "samples.png"
    known = read_report(report)
    if known is not None and known.get("protocol") == protocol and picture.exists():
        print("measured before, with the same settings:")
    else:
        dataset = origin(config.dataset_name)
        found = measure(model, dataset, budgets, count, guidance, seed)
        draw_budgets(picture, found.images, class_names(dataset))
        known = {"protocol": protocol, **found.report, **runs.provenance(_command())}
        write_json(report, known)
    print(table(known))
    print(f"the samples: {picture}\nthe numbers: {report}")
    return 0


def pairs(
    run: Positional[Path],
    out: Path | None = None,
    count: int = 50_000,
    steps: int = 128,
    guidance: float = 1.0,
    seed: int = 0,
    weights: Literal["ema", "raw"] = "ema",
) -> int:
    """Draw pairs of noise and sample from a trained run: the data set of reflow.

    Interrupted, the same command continues. Then train on them, starting from the run:
    `shortcut train PRESET --objective reflow --dataset-name OUT --start-from RUN`.

    Args:
        run: Run folder that `shortcut train` wrote.
        out: Folder for the pairs. Default: `pairs` in the run folder.
        count: Number of pairs, with balanced labels.
        steps: Network calls per pair.
        guidance: Push towards the label; 1 is none.
        seed: Pair i depends on the seed and i alone.
        weights: Averaged over training (ema), or the last ones (raw).
    """
    from shortcut_models import runs
    from shortcut_models.data.pairs import make_pairs

    config = runs.read_config(run)
    model = runs.load(run, weights)
    out = out or run / "pairs"
    about = {"run": str(run), "run_step": model.step, "weights": weights, "dataset": config.dataset_name}
    make_pairs(model, out, count, steps, guidance, seed, about)
    print(f"{count} pairs in {steps} steps each: {out}")
    return 0


def presets(name: Positional[str] = "") -> int:
    """List the recipes, or show all settings of one as the flags that would set them.

    Args:
        name: Preset to show in full.
    """
    from shortcut_models.config import flatten, to_json
    from shortcut_models.presets import PRESETS, get_preset

    if not name:
        print(_preset_list(PRESETS))
        return 0
    preset = get_preset(name)
    print(f"{name}: {preset.about}")
    for setting, value in flatten(to_json(preset.config)).items():
        print(f"  --{setting.replace('_', '-').replace('objective.kind', 'objective')} {shlex.quote(str(value))}")
    return 0


def _train(words: list[str]) -> int:
    from shortcut_models.config import with_objective
    from shortcut_models.interop.original_flags import translate
    from shortcut_models.objectives import OBJECTIVES
    from shortcut_models.presets import PRESETS, get_preset

    if not words or words[0] in ("-h", "--help"):
        print(TRAIN_HELP.format(objectives=_objective_list(OBJECTIVES), presets=_preset_list(PRESETS)), end="")
        return 0
    if words[0].startswith("-"):
        raise InputError(f"the first argument must be a preset, not {words[0]}: one of {', '.join(PRESETS)}.")
    name, words = words[0], translate(words[1:])
    base = get_preset(name).config
    words, chosen = _take(words, "objective")
    words, start_from = _take(words, "start-from")
    if chosen is not None:
        base = with_objective(base, chosen, start_from=start_from or "")
    elif start_from is not None:
        base = dataclasses.replace(base, start_from=start_from)
    arguments = _parse_train(name, base, words)

    from shortcut_models.train import start_processes, train

    start_processes()
    if arguments.dry_run:
        from shortcut_models.dry_run import describe

        print(describe(arguments.config))
        return 0
    return train(arguments.config, arguments.run_dir, _command())


def _compare(words: list[str]) -> int:
    from shortcut_models.config import Config
    from shortcut_models.objectives import OBJECTIVES
    from shortcut_models.presets import PRESETS, get_preset

    if words and words[0] in ("-h", "--help"):
        print(COMPARE_HELP.format(objectives=_objective_list(OBJECTIVES), presets=_preset_list(PRESETS)), end="")
        return 0
    if not words or words[0].startswith("-"):
        raise InputError("the first argument must be a data set that has a preset, such as digits.")
    dataset, words = words[0], words[1:]
    base = get_preset(dataset).config

    @dataclasses.dataclass(frozen=True)
    class Compare:
        """Train and measure several objectives on an equal budget of images, and write one table.

        Interrupted, the same command continues; what is there already is not done again. Several
        processes with the same arguments share the work.
        """

        config: Annotated[Config, arg(name="")]
        objectives: str = ""
        """Names, separated by commas. Default: all methods of the paper."""
        steps: str = "1,4,128"
        """Step budgets to measure, separated by commas."""
        seeds: str = "3"
        """Number of seeds; or the seeds themselves, separated by commas (5, for one alone)."""
        budget: int = base.max_steps * base.batch_size
        """Images that each method may see in training, over all its stages."""
        count: int = 1000
        """Images per step budget to measure by, with balanced labels."""
        guidance: float = 1.0
        """Guidance scale of sampling; 1 is none."""
        pairs: int = 10_000
        """Pairs that reflow learns from."""
        out: Path = Path("runs") / f"compare-{dataset}"
        """Folder for the runs, the table and the pictures."""

    given = _parse(Compare, f"shortcut compare {dataset}", words, default=Compare(config=base))
    for name, flag in (("max_steps", "--budget"), ("seed", "--seeds"), ("start_from", "--objectives")):
        if getattr(given.config, name) != getattr(base, name):
            raise InputError(f"--{name.replace('_', '-')} is set by the comparison itself: use {flag}.")

    from shortcut_models.compare import METHODS, Comparison, compare

    seeds = _whole_numbers("seeds", given.seeds, 0)
    comparison = Comparison(
        base=given.config,
        objectives=tuple(given.objectives.split(",")) if given.objectives else METHODS,
        steps=_whole_numbers("steps", given.steps, 1),
        seeds=tuple(range(seeds[0])) if "," not in given.seeds else seeds,
        budget=given.budget,
        count=given.count,
        guidance=given.guidance,
        pairs=given.pairs,
    )
    status = compare(comparison, given.out, _command())
    if not status:
        print((given.out / "table.md").read_text() + f"\nin {given.out}: table.md, quality.png, samples.png")
    return status


def _whole_numbers(flag: str, text: str, least: int) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise InputError(f"--{flag} {text} must be whole numbers separated by commas, such as 1,4,32.") from None
    if not numbers or min(numbers) < least:
        raise InputError(f"--{flag} {text} must be whole numbers from {least} up, separated by commas.")
    return numbers


def _parse_train(name: str, base: Any, words: list[str]) -> Any:
    """The preset with the overrides, and what is no setting of the model."""
    from shortcut_models.config import Config

    @dataclasses.dataclass(frozen=True)
    class Train:
        """Train a preset in a run folder, or continue the run that is there."""

        config: Annotated[Config, arg(name="")]
        run_dir: Path
        """Folder of the run."""
        dry_run: bool = False
        """Print shapes, parameters, memory and FLOPs per step, and stop."""

    words = [word if word not in ("--dry-run", "--dry_run") else "--dry-run=1" for word in words]
    default = Train(config=base, run_dir=Path("runs") / name.replace("/", "-"))
    return _parse(Train, f"shortcut train {name}", words, default=default)


def _take(words: list[str], flag: str) -> tuple[list[str], str | None]:
    """Take `--flag VALUE` or `--flag=VALUE` out of the arguments; `-` and `_` are alike."""
    for i, word in enumerate(words):
        given, equals, value = word.partition("=")
        if given.replace("_", "-") != f"--{flag}":
            continue
        if equals:
            return words[:i] + words[i + 1 :], value
        if i + 1 == len(words):
            raise InputError(f"--{flag} needs a value.")
        return words[:i] + words[i + 2 :], words[i + 1]
    return words, None


def _tyro(command: Callable[..., int], name: str, words: list[str]) -> int:
    return _parse(command, f"shortcut {name}", words)


def _parse(target: Any, prog: str, words: list[str], **options: Any) -> Any:
    """Parse with tyro; switches take 0 and 1 as in the original, true and false too."""
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_switch)
    with registry:
        return tyro.cli(
            target, prog=prog, args=words, config=(FlagConversionOff, tyro.conf.AvoidSubcommands), **options
        )


def _switch(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[bool] | None:
    if info.type is not bool:
        return None
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

    def read(given: list[str]) -> bool:
        if given[0].lower() not in words:
            raise ValueError(f"expected 0, 1, true or false, but got {given[0]!r}")
        return words[given[0].lower()]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{0,1}",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(int(value))],
    )


def _preset_list(found: dict[str, Any]) -> str:
    return "\n".join(f"  {name:<10} {preset.about}" for name, preset in found.items()) + "\n"


def _objective_list(found: dict[str, Any]) -> str:
    """The names, wrapped and indented as in the help texts; those of the official code are told in a word."""
    import textwrap

    names = [name for name in found if not name.endswith("-original")]
    text = ", ".join(names) + "; NAME-original has the official code's constants"
    return ("\n" + " " * 22).join(textwrap.wrap(text, 76, break_on_hyphens=False))


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
