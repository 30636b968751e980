"""What the official code's flags ask for besides learning: measuring in training, and the modes that draw.

See `flags`, which calls this page.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.config import Config
    from shortcut_models.during import During
    from shortcut_models.model import Model
    from shortcut_models.objectives import Objective

BUDGETS = (1, 4, 32, 128)
"""Steps that the official code measures and draws in."""
COUNT = 4096
"""Samples of its FID in training."""
STATISTICS, PROTOCOL, FEATURES = "fid-paper", "paper", 2048


def check_statistics(path: Path) -> None:
    """Raise InputError unless this is an .npz as the official code has them, with `mu` and `sigma`."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            mean, covariance = stored["mu"], stored["sigma"]
        fits = (mean.shape, covariance.shape) == ((FEATURES,), (FEATURES, FEATURES))
    except Exception:  # Of an archive that is damaged, NumPy and zipfile raise what they like.
        fits = False
    if not fits:
        raise InputError(
            f"--fid_stats {path} is no .npz with `mu` of {FEATURES} and `sigma` of {FEATURES} x {FEATURES} numbers, "
            "which Inception's features have: give the official page's file."
        )


def why_no_fid(flags: dict[str, Any]) -> str | None:
    """A sentence if FID is asked for and not computed: the official page's commands train without the statistics."""
    stats = flags["fid_stats"]
    if not stats and (flags["inception"] or flags["any_inception"]):
        name = "inception" if flags["inception"] else "any_inception"
        return f"--{name} {flags[name]}: no FID is computed, for --fid_stats is not given."
    if not stats or Path(stats).exists():
        return None
    return f"--fid_stats {stats}: no FID is computed, for the file is not there."


def measures_fid(flags: dict[str, Any]) -> bool:
    """Whether FID is measured: `--fid_stats` names a file that is there.

    Raises InputError if it does, and Inception's weights cannot be used.
    """
    from shortcut_models.metrics.features.inception import find_inception

    stats = flags["fid_stats"]
    if not stats or why_no_fid(flags):
        return False
    try:
        find_inception(_path(flags["inception"]), bool(flags["any_inception"]))
    except InputError as error:
        raise InputError(
            f"--fid_stats {stats} asks for FID, but {str(error).rstrip('.')}; without --fid_stats, none is computed."
        ) from None
    return True


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def during(flags: dict[str, Any], config: "Config") -> "During":
    """What is done in training, at the intervals of the official code."""
    from shortcut_models.during import During

    every = flags["eval_interval"] * config.batch_size
    found = During(
        validate_every=flags["log_interval"] * config.batch_size if config.data.held_out else None,
        figures_every=every,
        evaluate_steps=BUDGETS,
        evaluate_count=COUNT,
        evaluate_weights=_weights(flags),
    )
    if not measures_fid(flags):
        return found
    guided = flags["model.cfg_scale"] != 0 and config.objective.trains_null_label
    return replace(
        found,
        evaluate_every=every,
        evaluate_guidance=flags["model.cfg_scale"] if guided and not config.objective.unconditional else 1.0,
        metrics=(STATISTICS,),
        stats=Path(flags["fid_stats"]),
        stats_protocol=PROTOCOL,
        inception=_path(flags["inception"]),
        any_inception=bool(flags["any_inception"]),
    )


def flags_of(during: "During") -> dict[str, str]:
    """Flags of `shortcut train` for it, by name."""
    from shortcut_models.during import NOTHING

    known, there = parsing.settings(during), parsing.settings(NOTHING)
    return {name: parsing.write(s.value) for name, s in known.items() if s.value != there[name].value}


def draw(flags: dict[str, Any], given: dict[str, Any], objective: "Objective", side: Callable[[], int]) -> int:
    """Do what a `--mode` other than train asks for, with the weights that `--model.use_ema` names.

    `given` are the flags on the line, `objective` and `side` what they say of a checkpoint that does not: how it was
    trained, and the side of its input.
    """
    mode, source = flags["mode"], flags["load_dir"]
    if not source:
        raise InputError(f"--mode {mode} needs --load_dir, the run or checkpoint to draw from.")
    steps, guidance = flags["inference_timesteps"], flags["inference_cfg_scale"]
    model, name = _model(flags, given, objective, side)
    from shortcut_models.weights import is_official

    # A run of ours knows what of an official checkpoint only these flags tell.
    told = lambda name: name.startswith("model.") or name == "dataset_name"  # noqa: E731
    known = told if is_official(Path(source)) else CHECKED.__contains__
    read = READ if mode == "interpolate" else (*READ, *READ_TO_MEASURE)
    if unread := [f"--{flag}" for flag in given if flag not in read and not known(flag)]:
        print(f"{', '.join(unread)}: not read in --mode {mode}.")
    unlabelled = model.unconditional or guidance == 0
    out = Path(flags["save_dir"] or _beside(source, f"{mode}-{steps}-steps{'.png' * (mode == 'interpolate')}"))
    settings = {"steps": steps, "seed": flags["seed"], "guidance": 1.0 if unlabelled else guidance}
    if mode == "interpolate":
        from shortcut_models.figures import draw_interpolation

        out = out if out.suffix == ".png" else out / f"interpolate-{steps}-steps.png"
        if out.exists():
            raise InputError(f"{out} is there already: choose another --save_dir.")
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_interpolation(model, out, **settings, unlabelled=unlabelled)
        print(f"samples between two noises: {out}")
        return 0
    return _generate(flags, model, name, out, settings | {"labels": "none" if unlabelled else "random"})


READ = ("load_dir", "save_dir", "seed", "mode", "inference_timesteps", "inference_cfg_scale")
"""Flags that drawing reads, besides the model's."""
READ_TO_MEASURE = ("batch_size", "inference_generations", "fid_stats", "inception", "any_inception")
"""Those that it reads besides where samples are counted, and not shown between two noises."""
SIZES = ("hidden_size", "patch_size", "depth", "num_heads", "mlp_ratio", "num_classes")
CHECKED = frozenset(("model.use_ema", "model.train_type", *(f"model.{size}" for size in SIZES)))
"""Those of the model that a run of ours is asked about: which weights, and what must be its own."""


def _model(
    flags: dict[str, Any], given: dict[str, Any], objective: "Objective", side: Callable[[], int]
) -> "tuple[Model, str]":
    """The model at `--load_dir`, and what commands of ours call it.

    Raises InputError if the flags given are not its own.
    """
    from shortcut_models import weights

    source, kind = flags["load_dir"], flags["model.train_type"]
    name = source
    if weights.is_official(Path(source)):
        from shortcut_models.interop.importing import read_weights

        told: dict[str, Any] = {"image_size": side(), "weights": _weights(flags), "train_type": kind}
        if "model.num_heads" in given:
            told["num_heads"] = given["model.num_heads"]
        model = weights.as_model(read_weights(source, format="official", **told), objective)
        name = f"{Path(source).name}-model"
        words = [source, name, *_words(source, {key.replace("_", "-"): value for key, value in told.items()})[1:]]
        print(f"the same as: {parsing.command_line('import', words)}")
    else:
        model = weights.load(source, _weights(flags))
        if "model.train_type" in given and type(model.objective) is not type(objective):
            raise InputError(f"--model.train_type {kind} is not how {source} was trained: leave it out.")
    for size in SIZES:
        there = getattr(model.network, size, None)
        if there is not None and given.get(f"model.{size}", there) != there:
            raise InputError(
                f"--model.{size} is {given[f'model.{size}']}, but {there} in {source}: give that, or leave it out."
            )
    return model, name


def _generate(flags: dict[str, Any], model: "Model", name: str, out: Path, settings: dict[str, Any]) -> int:
    """PNGs of whole batches, and their FID if there is a file of statistics; `name` is how to call the model."""
    from shortcut_models.cli import evaluate, sample
    from shortcut_models.evaluate import read_report

    count = flags["inference_generations"] // flags["batch_size"] * flags["batch_size"]
    if count < 1:
        raise InputError(
            f"--inference_generations {flags['inference_generations']} is less than a batch of {flags['batch_size']}: "
            "only whole batches are drawn."
        )
    measured = measures_fid(flags)  # Before anything is drawn, for Inception may be missing.
    source, same = flags["load_dir"], {"count": count, "weights": _weights(flags), **settings}
    drawn = _words(source, same | {"out": out})
    print(f"the same as: {parsing.command_line('sample', [name, *drawn[1:]])}", flush=True)
    status = sample.run(drawn, model)
    if missing := why_no_fid(flags):
        print(missing)
    if status or not measured:
        return status
    measures = {"metrics": STATISTICS, "stats": flags["fid_stats"], "stats-protocol": PROTOCOL}
    measures |= {name.replace("_", "-"): flags[name] for name in ("inception", "any_inception") if flags[name]}
    report = out.with_name(f"{out.name}.json")
    words = _words(source, same | measures | {"out": report})
    print(f"the same as: {parsing.command_line('evaluate', [name, *words[1:]])}", flush=True)
    if status := evaluate.run(words, model):
        return status
    values = (read_report(report) or {}).get("steps", {}).get(str(settings["steps"]), {})
    for metric in [metric for metric in values if metric.startswith(STATISTICS)]:
        print(f"FID is {values[metric]} ({metric})")  # Where scripts look for the official code's words.
    return 0


def _words(source: str, options: dict[str, Any]) -> list[str]:
    return [source, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def _weights(flags: dict[str, Any]) -> Literal["ema", "raw"]:
    return "ema" if flags["model.use_ema"] else "raw"


def _beside(source: str, name: str) -> Path:
    """A place in a run folder, or next to a checkpoint."""
    from shortcut_models.weights import folder_of

    path = Path(source)
    return folder_of(source) / (name if path.is_dir() else f"{re.sub(r'[^a-zA-Z0-9_.-]', '-', path.name)}-{name}")
