"""The official code's command-line flags (kvfrans/shortcut-models, `train.py`) in this package's spelling."""

from collections.abc import Callable
from dataclasses import fields

from shortcut_models.errors import InputError
from shortcut_models.objectives import OBJECTIVES

Words = list[str]


def _rename(*names: str) -> Callable[[str], Words]:
    return lambda value: [word for name in names for word in (f"--{name}", value)]


def _share(value: str) -> Words:
    every = float(value)
    if every <= 1:
        raise InputError(f"--model.bootstrap_every {value}: every how many images one learns jumps; more than 1.")
    return ["--objective.share", str(1 / every)]


def _choice(flag: str, **known: Words) -> Callable[[str], Words]:
    def choose(value: str) -> Words:
        if value.replace("-", "_") not in known:
            options = ", ".join(known).replace("_", "-")
            raise InputError(f"--{flag} {value} is not supported by this version: it takes {options}.")
        return known[value.replace("-", "_")]

    return choose


def _only(flag: str, value: str) -> Callable[[str], Words]:
    def check(given: str) -> Words:
        if given not in (value, f"{value}.0"):
            raise InputError(f"--{flag} {given} is not supported by this version: it takes {value}.")
        return []

    return check


FLAGS: dict[str, Callable[[str], Words]] = {
    "save_dir": _rename("run_dir"),
    "model.lr": _rename("optimizer.learning_rate"),
    "model.beta1": _rename("optimizer.beta1"),
    "model.beta2": _rename("optimizer.beta2"),
    "model.weight_decay": _rename("optimizer.weight_decay"),
    "model.warmup": _rename("optimizer.warmup_steps"),
    "model.class_dropout_prob": _rename("objective.label_dropout"),
    "model.denoise_timesteps": _rename("objective.levels", "objective.times.grid"),
    "model.target_update_rate": _rename("ema_decay", "objective.target_decay"),
    "model.bootstrap_every": _share,
    "model.bootstrap_dt_bias": _only("model.bootstrap_dt_bias", "0"),
    "model.dropout": _only("model.dropout", "0"),
    "model.use_stable_vae": _only("model.use_stable_vae", "0"),
    "model.t_sampling": _only("model.t_sampling", "discrete-dt"),
    "model.dt_sampling": _only("model.dt_sampling", "uniform"),
    "model.sharding": _rename("sharding"),
}
FLAGS["model.use_cosine"] = lambda value: _choice(
    "model.use_cosine", **{"0": ["--optimizer.schedule", "constant"], "1": ["--optimizer.schedule", "cosine"]}
)(value)
FLAGS["model.train_type"] = _choice(
    "model.train_type",
    naive=["--objective", "flow-matching"],
    shortcut=["--objective", "shortcut"],
    progressive=["--objective", "progressive-original"],
    consistency=["--objective", "consistency-original"],
    consistency_distillation=["--objective", "consistency-distillation-original"],
    livereflow=["--objective", "live-reflow-original"],
)
FLAGS["model.bootstrap_ema"] = _choice("model.bootstrap_ema", **{"0": ["--objective.target_decay", "None"], "1": []})

ELSEWHERE = {
    "model.use_ema": "choose the weights when sampling: --weights ema or raw",
    "load_dir": "a run continues by itself from its --run-dir",
    "eval_interval": "measure a run with `shortcut evaluate RUN`, also while it trains",
    "fid_stats": "this version measures digits only, with `shortcut evaluate RUN`",
    "mode": "use `shortcut sample` or `shortcut evaluate`",
    "debug_overfit": "this version has no such mode",
    "wandb.project": "use --tracker wandb",
    "wandb.name": "use --tracker wandb; the run is named after its folder",
}
"""Flags without a counterpart in training, and what to do instead."""


def translate(words: Words) -> Words:
    """Arguments with the original's flags replaced by ours; `-` and `_` alike, `--flag=value` too.

    Raises InputError for a flag that has no counterpart or a value that we cannot honour.
    """
    ours: list[Words] = []
    taken: list[int] = []
    scale, guided = None, None
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        known = word.startswith("--") and name in {*FLAGS, *ELSEWHERE, "model.cfg_scale", "model.bootstrap_cfg"}
        if not known:
            ours.append([word])
            continue
        if not equals:
            if not remaining:
                raise InputError(f"--{name} needs a value.")
            value = remaining.pop(0)
        if name in ELSEWHERE:
            raise InputError(f"--{name} has no counterpart here: {ELSEWHERE[name]}.")
        if name == "model.cfg_scale":
            scale = value
        elif name == "model.bootstrap_cfg":
            guided = _choice(name, **{"0": ["0"], "1": ["1"]})(value) == ["1"]
        else:
            translated = _value(name, value)
            ours += [translated[i : i + 2] for i in range(0, len(translated), 2)]
            taken += [len(ours) - 1 - i for i in range(len(translated) // 2)]
    # In the original the scale acts in training only where bootstrap_cfg is set; its default is 4.
    if guided is not None:
        ours.append(["--objective.guidance", (scale or "4.0") if guided else "1.0"])
        taken.append(len(ours) - 1)
    kept = [pair for i, pair in enumerate(ours) if i not in taken or _matters(pair, [ours[k] for k in taken])]
    return [word for pair in kept for word in pair]


def _matters(pair: Words, others: list[Words]) -> bool:
    """Whether a translated flag acts, given the other ones; the original ignores those that do not, and so do we."""
    flag, value = pair
    if flag == "--objective.target_decay" and value != "None":
        return ["--objective.target_decay", "None"] not in others  # bootstrap_ema 0 beats target_update_rate.
    chosen = [other[1] for other in others if other[0] == "--objective"]
    if not chosen or not flag.startswith("--objective."):
        return True
    return flag.split(".")[1] in {field.name for field in fields(OBJECTIVES[chosen[-1]])}


def _value(name: str, value: str) -> Words:
    try:
        return FLAGS[name](value)
    except InputError:
        raise
    except ValueError:
        raise InputError(f"--{name} {value} is not a number.") from None
