"""The command line of the official code (kvfrans/shortcut-models, `train.py`): its flags, and what they mean here.

`FLAGS` has every flag with its default, `TRAIN_TYPES` what each `--model.train_type` learns here and which flags
it reads. What is translated starts from the official code's defaults, none of ours, and is what
`shortcut train` would train; that command is printed. The root's `train.py` is this page.
"""

import hashlib
import json
import os
import random
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcut_models import catalogue, terminal
from shortcut_models.cli import parsing
from shortcut_models.errors import InputError
from shortcut_models.interop import flag_checks, flag_help, flag_uses
from shortcut_models.interop.flag_data import FEW, find_data

if TYPE_CHECKING:
    from shortcut_models.config import Config
    from shortcut_models.objectives import Objective

Value = bool | int | float | str | None

FLAGS: dict[str, Value] = {
    "dataset_name": "imagenet256",
    "load_dir": None,
    "save_dir": None,
    "fid_stats": None,
    "seed": 10,
    "log_interval": 1000,
    "eval_interval": 20000,
    "save_interval": 100000,
    "batch_size": 32,
    "max_steps": 1000000,
    "debug_overfit": 0,
    "mode": "train",
    "inference_timesteps": 128,
    "inference_generations": 4096,
    "inference_cfg_scale": 1.0,
    "model.lr": 0.0001,
    "model.beta1": 0.9,
    "model.beta2": 0.999,
    "model.weight_decay": 0.1,
    "model.use_cosine": 0,
    "model.warmup": 0,
    "model.dropout": 0.0,
    "model.hidden_size": 64,
    "model.patch_size": 8,
    "model.depth": 2,
    "model.num_heads": 2,
    "model.mlp_ratio": 1,
    "model.class_dropout_prob": 0.1,
    "model.num_classes": 1000,
    "model.denoise_timesteps": 128,
    "model.cfg_scale": 4.0,
    "model.target_update_rate": 0.999,
    "model.use_ema": 0,
    "model.use_stable_vae": 1,
    "model.sharding": "dp",
    "model.t_sampling": "discrete-dt",
    "model.dt_sampling": "uniform",
    "model.bootstrap_cfg": 0,
    "model.bootstrap_every": 8,
    "model.bootstrap_ema": 1,
    "model.bootstrap_dt_bias": 0,
    "model.train_type": "shortcut",
    "wandb.project": "shortcut",
    "wandb.name": "shortcut_{dataset_name}",
    "wandb.run_id": "None",
    "wandb.offline": False,
    "wandb.entity": None,
    "wandb.group": None,
    "wandb.exp_prefix": None,
    "wandb.exp_descriptor": None,
    "wandb.unique_identifier": "",
    "wandb.random_delay": 0,
}
"""Every flag of the official code, and its default."""

OURS: dict[str, Value] = {"objective.overlap": 0, "data_threads": 16, "inception": None, "any_inception": 0}
"""Flags of `shortcut train` that are taken besides: to use images as the official code does, to read them, for FID."""

REFUSED = {
    "model.dropout": "the network has no dropout",
    "model.t_sampling": "the official code declares this flag and does not read it",
    "model.dt_sampling": "the official code declares this flag and does not read it",
}
"""Flags that have no effect here but at their default, and why."""


@dataclass(frozen=True)
class TrainType:
    """One value of `--model.train_type`."""

    objective: str
    """Our name of the method with the official code's constants."""
    settings: Callable[[dict[str, Any]], dict[str, Any]]
    """Fields of the objective, from the flags; what holds for all is in `_objective`."""
    reads: frozenset[str] = frozenset()
    """Of the flags in `CHOOSY`, those that the official code reads for it."""


CHOOSY = (
    "model.class_dropout_prob",
    "model.bootstrap_cfg",
    "model.bootstrap_ema",
    "model.bootstrap_every",
    "model.bootstrap_dt_bias",
)
"""Flags that the official code reads for some train types alone."""


def _scale(flags: dict[str, Any]) -> float:
    """Guidance of targets; at scale 0 every label is the null label, so that there is nothing to guide."""
    return flags["model.cfg_scale"] or 1.0


def _shortcut(flags: dict[str, Any]) -> dict[str, Any]:
    return {
        "share": 1 / flags["model.bootstrap_every"],
        "levels": flags["model.denoise_timesteps"],
        "target_decay": flags["model.target_update_rate"] if flags["model.bootstrap_ema"] else None,
        "guidance": _scale(flags) if flags["model.bootstrap_cfg"] else 1.0,
        "longer": bool(flags["model.bootstrap_dt_bias"]),
        "overlap": bool(flags["objective.overlap"]),
    }


def _progressive(flags: dict[str, Any]) -> dict[str, Any]:
    return {
        "levels": flags["model.denoise_timesteps"],
        "guidance": _scale(flags) if flags["model.bootstrap_cfg"] else 1.0,
        "teacher_weights": "ema" if flags["model.bootstrap_ema"] else "raw",
    }


def _consistency(flags: dict[str, Any]) -> dict[str, Any]:
    return {"levels": flags["model.denoise_timesteps"], "target_decay": flags["model.target_update_rate"]}


def _live_reflow(flags: dict[str, Any]) -> dict[str, Any]:
    share, levels = 1 / flags["model.bootstrap_every"], flags["model.denoise_timesteps"]
    return {"share": share, "levels": levels, "guidance": _scale(flags)}


DROPOUT, BOOTSTRAP_CFG, BOOTSTRAP_EMA, BOOTSTRAP_EVERY, BOOTSTRAP_DT_BIAS = CHOOSY
TRAIN_TYPES = {
    "naive": TrainType("flow-matching-original", lambda flags: {}, frozenset({DROPOUT})),  # noqa: ARG005
    "shortcut": TrainType("shortcut-original", _shortcut, frozenset(CHOOSY)),
    "progressive": TrainType("progressive-original", _progressive, frozenset({BOOTSTRAP_CFG, BOOTSTRAP_EMA})),
    "consistency": TrainType("consistency-original", _consistency),
    "consistency-distillation": TrainType("consistency-distillation-original", _consistency),
    "livereflow": TrainType("live-reflow-original", _live_reflow, frozenset({DROPOUT, BOOTSTRAP_EVERY})),
}
"""What each `--model.train_type` is here."""


def read_flags(words: list[str]) -> dict[str, Any]:
    """The flags given, by name, each of its default's type; `_` may stand in numbers, as in 410_000.

    Raises InputError for an unknown flag, a value of another type, and arguments that are no flags.
    """
    line = parsing.split([_spelt_out(word) for word in words], ["wandb.offline", "any_inception"])
    if line.arguments:
        raise InputError(f"argument {line.arguments[0]!r} is one too many: everything is a flag, --name VALUE.")
    parsing.check_known(line, FLAGS | OURS)
    return {name: _typed(name, text) for name, text in line.flags.items()}


def _spelt_out(word: str) -> str:
    """The word as absl takes it, which reads the official code's flags: with one dash, or a switch with "no" before."""
    if word.startswith("-") and word[1:].partition("=")[0] in FLAGS:
        return f"-{word}"
    return "--wandb.offline=0" if word == "--nowandb.offline" else word


def _typed(name: str, text: str) -> Value:
    default = (FLAGS | OURS)[name]
    kind = str if default is None else type(default)
    if kind is str:
        return text
    if kind is int and name == "model.mlp_ratio":
        kind = float
    return parsing.read(f"--{name}", kind, text)


def main(words: list[str] | None = None) -> int:
    """Do what the command line of the official code asks for; returns the exit status, as `shortcut` does."""
    program = words is None
    words = sys.argv[1:] if words is None else words

    def command() -> int:
        try:
            return run(words, program)
        except InputError as error:
            raise InputError(flag_help.in_their_words(str(error))) from None

    return terminal.run(command, program)


def run(words: list[str], program: bool = False) -> int:
    """Train, or draw samples, as `--mode` says; raises InputError for what cannot be."""
    if parsing.wants_help(words):
        print(flag_help.usage(FLAGS, OURS), end="")
        return 0
    given = read_flags(words)
    flags: dict[str, Any] = FLAGS | OURS | given
    check(flags)
    from shortcut_models import startup

    if program:
        startup.prepare()
    if flags["mode"] != "train":
        return flag_uses.draw(flags, given, _objective(flags), lambda: find_data(flags).shape[0])
    from shortcut_models.interop.tracked_names import original_names, variables
    from shortcut_models.train import train

    startup.start_processes()
    config = configuration(flags)
    tracked = variables(flags) if any(name.startswith("wandb.") for name in given) else {}
    if tracked:
        config = replace(config, tracker="wandb")
    folder, during = run_folder(flags, config), flag_uses.during(flags, config)
    same = equivalent(config, folder, flag_uses.flags_of(during))
    same = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in tracked.items()), same])
    for sentence in [f"run folder: {folder}", *remarks(flags, given), f"the same as: {same}"]:
        print(sentence, flush=True)
    os.environ.update(tracked)
    if flags["wandb.random_delay"]:
        time.sleep(random.uniform(0, flags["wandb.random_delay"]))
    return train(config, folder, shlex.join(["python", "train.py", *words]), during, original_names)


def check(flags: dict[str, Any]) -> None:
    """Raise InputError for values that are out of range, or have no counterpart here."""
    flag_checks.check_ranges(flags)
    for name, why in REFUSED.items():
        if flags[name] != FLAGS[name]:
            raise InputError(f"--{name} {flags[name]} cannot be followed: {why}; leave it out.")
    kind = flags["model.train_type"]
    if kind not in TRAIN_TYPES:
        raise InputError(f"--model.train_type {kind} is unknown: the types are {', '.join(TRAIN_TYPES)}.")
    if flags["model.sharding"] not in ("dp", "fsdp"):
        raise InputError(f"--model.sharding {flags['model.sharding']} is unknown: use dp or fsdp.")
    if flags["model.bootstrap_every"] < 2:
        raise InputError(
            f"--model.bootstrap_every is {flags['model.bootstrap_every']}, but must be at least 2: a share of the "
            "batch must be left to learn the velocity."
        )
    switches = ("use_ema", "use_stable_vae", "use_cosine", "bootstrap_cfg", "bootstrap_ema", "bootstrap_dt_bias")
    for name in ("debug_overfit", "objective.overlap", "any_inception", *(f"model.{name}" for name in switches)):
        if flags[name] not in (0, 1):
            raise InputError(f"--{name} is {flags[name]}, but must be 0 or 1.")
    if flags["objective.overlap"] and kind != "shortcut":
        raise InputError(
            f"--objective.overlap 1 is for --model.train_type shortcut: {kind} uses as many images as the official "
            "code does; leave it out."
        )
    if flags["debug_overfit"] and flags["batch_size"] > FEW and flags["batch_size"] % FEW:
        raise InputError(
            f"--debug_overfit 1 trains on {FEW} images, each equally often in a batch, but --batch_size "
            f"{flags['batch_size']} is no multiple of {FEW}: choose one."
        )
    if flags["fid_stats"] and Path(flags["fid_stats"]).exists():
        flag_uses.check_statistics(Path(flags["fid_stats"]))


def remarks(flags: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """One sentence for everything that was asked for and changes nothing here."""
    kind = flags["model.train_type"]
    found = [
        f"--{name} {given[name]}: --model.train_type {kind} does not read it, in the official code neither."
        for name in CHOOSY
        if name in given and given[name] != FLAGS[name] and name not in TRAIN_TYPES[kind].reads
    ]
    if unread := [f"--{name}" for name in given if name.startswith("inference_")]:
        found.append(f"{', '.join(unread)}: not read in --mode train.")
    if missing := flag_uses.why_no_fid(flags):
        found.append(missing)
    if flags["load_dir"] and _goes_on(flags):
        found.append(
            "--load_dir: the run goes on as if it had not stopped, with its optimiser; --save_dir starts from its "
            "averages instead, at step 0, as the official code does."
        )
    elif flags["load_dir"] and _keeps_step(flags):
        found.append(
            "--wandb.run_id: the training there goes on, from its step; with its optimiser, which the official code "
            "forgets."
        )
    elif flags["load_dir"]:
        found.append("--load_dir: the weights and their average both start from the averages there, if it has any.")
    if kind == "shortcut" and not flags["objective.overlap"]:
        found.append(
            "every image of a batch is used once; the official code takes those of the jumps twice and leaves as many "
            "out, as --objective.overlap 1 does."
        )
    return found


def configuration(flags: dict[str, Any]) -> "Config":
    """The training that all flags, defaults included, stand for; raises InputError if it cannot be."""
    from shortcut_models.config import Config
    from shortcut_models.networks.dit import DiT
    from shortcut_models.optimizer import Optimizer

    objective, data = _objective(flags), find_data(flags)
    flag_checks.check_training(flags, objective)
    side, _, channels = data.shape
    sizes = {name: flags[f"model.{name}"] for name in ("hidden_size", "patch_size", "depth", "num_heads")}
    sizes |= {"mlp_ratio": float(flags["model.mlp_ratio"])}
    sizes |= {"image_size": side, "channels": channels, "num_classes": flags["model.num_classes"]}
    cosine = flags["model.use_cosine"]
    return Config(
        data=data,
        **{
            name: flags[name]
            for name in ("batch_size", "max_steps", "seed", "log_interval", "save_interval", "data_threads")
        },
        ema_decay=flags["model.target_update_rate"],
        sharding=flags["model.sharding"],
        **_start(flags),
        model=replace(DiT.original(**sizes), dtype="bfloat16"),
        objective=objective,
        optimizer=Optimizer(
            learning_rate=flags["model.lr"],
            warmup_steps=flags["model.warmup"],
            schedule="cosine" if cosine else "constant",
            decay_steps=flags["max_steps"] if cosine else 0,
            beta1=flags["model.beta1"],
            beta2=flags["model.beta2"],
            weight_decay=flags["model.weight_decay"],
            decayed="all",
        ),
    )


def _objective(flags: dict[str, Any]) -> "Objective":
    kind = TRAIN_TYPES[flags["model.train_type"]]
    base = catalogue.find("objective", catalogue.OBJECTIVES, kind.objective)
    changes: dict[str, Any] = kind.settings(flags)
    if hasattr(base, "times"):
        changes["times"] = replace(base.times, grid=flags["model.denoise_timesteps"])
    if DROPOUT in kind.reads:
        changes["label_dropout"] = flags[DROPOUT]
    found = replace(base, **changes)
    # At scale 0 every label is the null label, those of the jumps and pairs too.
    return found.without_labels() if flags["model.cfg_scale"] == 0 else found


def _trained(place: str) -> "Config | None":
    """The configuration of a run of ours; None for a checkpoint of the official code, and other weights."""
    from shortcut_models import runs

    if not Path(place).exists():
        raise InputError(f"--load_dir {place} is not there: name a run folder, or a checkpoint of the official code.")
    return runs.read_config(Path(place)) if (Path(place) / "run.json").is_file() else None


def _goes_on(flags: dict[str, Any]) -> bool:
    """Whether `--load_dir` names the run that is to go on: one of the same method, and no other folder is named."""
    if not flags["load_dir"] or flags["save_dir"]:
        return False
    found = _trained(flags["load_dir"])
    return found is not None and type(found.objective) is type(_objective(flags))


def _keeps_step(flags: dict[str, Any]) -> bool:
    """Whether a checkpoint of the official code goes on at its step, as there if its W&B run does."""
    return flags["wandb.run_id"] != FLAGS["wandb.run_id"] and not _objective(flags).needs_teacher


def _start(flags: dict[str, Any]) -> dict[str, Any]:
    """What training starts from, and as what: the weights to go on with under another name, or the teacher."""
    place = flags["load_dir"]
    if not place:
        return {}
    found, keeps_step = _trained(place), _keeps_step(flags)
    if found is not None:
        if keeps_step and not _goes_on(flags):
            raise InputError(
                f"--wandb.run_id goes on at the step of --load_dir {place}, which a run of ours does in its own folder "
                "and with its own method: leave --save_dir out, or --wandb.run_id."
            )
        same = ("start_from", "start_as", "start_optimizer")
        return {name: getattr(found, name) for name in same} if _goes_on(flags) else {"start_from": place}
    # A checkpoint does not say how it was trained: as this one is, or, of a method that distils, as a flow.
    kind = "naive" if _objective(flags).needs_teacher else flags["model.train_type"]
    return {"start_from": place, "start_as": kind, "start_optimizer": keeps_step}


def run_folder(flags: dict[str, Any], config: "Config") -> Path:
    """Where the run lies: `--save_dir`; the run that goes on; or a name that tells the settings apart."""
    from shortcut_models.config import FREE_TO_CHANGE
    from shortcut_models.config_json import to_json

    if flags["save_dir"]:
        return Path(flags["save_dir"])
    if _goes_on(flags):
        return Path(flags["load_dir"])
    settings = {name: value for name, value in to_json(config).items() if name not in FREE_TO_CHANGE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.-]+", "-", flags["dataset_name"]).strip("-")
    return Path("runs") / f"{name}-{flags['model.train_type']}-{digest}"


def equivalent(config: "Config", folder: Path | None = None, more: dict[str, str] | None = None) -> str:
    """The `shortcut train` command of a configuration: a preset, what differs from it, and `more` flags."""
    from shortcut_models.cli import settings
    from shortcut_models.data import opening
    from shortcut_models.presets import get_preset

    own = catalogue.kind_of(catalogue.DATA, config.data)
    preset = _preset(config)
    switches = {"objective": next(found.objective for found in TRAIN_TYPES.values() if _is(found, config))}
    if own != "tfds":
        path = getattr(config.data, "path", "")
        switches["data"] = f"{own}:{path}" if path else own
    if config.start_from:
        switches["start_from"] = config.start_from
    different: dict[str, str] = {}
    if config.start_from:  # What a file to start from does not tell.
        told = {"start_as": config.start_as, "model.num_heads": parsing.write(getattr(config.model, "num_heads", None))}
        different |= {name: value for name, value in told.items() if value != "auto"}
    data = get_preset(preset).data
    if "data" in switches:
        data = opening.choose(switches["data"], data)
    # The network's sizes follow from the data, whose settings therefore come first.
    different |= _changed(parsing.settings(config.data, "data."), parsing.settings(data, "data."))
    base = settings.choose(preset, parsing.Line([], switches | different))
    different |= _changed(parsing.settings(config), parsing.settings(base))
    words = ["shortcut", "train", preset, *(["--run-dir", str(folder)] if folder else [])]
    for name, value in {**different, **switches, **(more or {})}.items():
        words += [parsing.flag(name), value]
    return shlex.join(words)


def _changed(known: dict[str, parsing.Setting], there: dict[str, parsing.Setting]) -> dict[str, str]:
    return {n: parsing.write(s.value) for n, s in known.items() if n not in there or s.value != there[n].value}


def _is(found: TrainType, config: "Config") -> bool:
    base = catalogue.find("objective", catalogue.OBJECTIVES, found.objective)
    return type(base) is type(config.objective)


def _preset(config: "Config") -> str:
    """The recipe of the paper that is nearest."""
    if getattr(config.data, "names", ()) == ("celebahq256",):
        return "celebahq256-b"
    return "imagenet256-xl" if getattr(config.model, "hidden_size", 0) >= 1152 else "imagenet256-b"
