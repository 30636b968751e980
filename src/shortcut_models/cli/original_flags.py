"""Flags of the official code (kvfrans/shortcut-models, `train.py`) and where their meaning is found here.

`shortcut` speaks one dialect: for a flag of the official code's that is none of ours, the refusal names ours.
"""

from shortcut_models.cli.parsing import Line
from shortcut_models.errors import InputError

OURS = {
    "save_dir": "--run-dir",
    "load_dir": "--run-dir: a run goes on from its last checkpoint",
    "eval_interval": "`shortcut evaluate RUN`, also while it trains",
    "fid_stats": "`shortcut evaluate RUN`",
    "mode": "`shortcut sample` or `shortcut evaluate`",
    "wandb.project": "--tracker wandb",
    "wandb.name": "--tracker wandb, which names the run after its folder",
    "model.lr": "--optimizer.learning-rate",
    "model.beta1": "--optimizer.beta1",
    "model.beta2": "--optimizer.beta2",
    "model.weight_decay": "--optimizer.weight-decay",
    "model.warmup": "--optimizer.warmup-steps",
    "model.use_cosine": "--optimizer.schedule cosine",
    "model.class_dropout_prob": "--objective.label-dropout",
    "model.denoise_timesteps": "--objective.levels",
    "model.target_update_rate": "--ema-decay, and --objective.target-decay for the targets",
    "model.bootstrap_every": "--objective.share, which is 1 / bootstrap_every",
    "model.bootstrap_ema": "--objective.target-decay, none for targets from the weights in training",
    "model.bootstrap_cfg": "--objective.guidance, above 1 for guided targets",
    "model.cfg_scale": "--objective.guidance in training, --guidance in sampling",
    "model.train_type": "--objective, such as --objective shortcut-original",
    "model.t_sampling": "--objective.times.grid",
    "model.sharding": "--sharding",
    "model.use_ema": "--weights ema or raw, when sampling",
    "model.num_timesteps": "--steps, when sampling",
    "inference_timesteps": "--steps, when sampling",
    "inference_generations": "--count, when sampling",
    "inference_cfg_scale": "--guidance, when sampling",
}
"""The official flag, and ours for the same."""

ABSENT = ("debug_overfit", "model.bootstrap_dt_bias", "model.dropout", "model.dt_sampling", "model.use_stable_vae")
"""Official flags that have no counterpart."""


def check_original(line: Line) -> None:
    """Raise InputError, naming ours, for a flag of the official code's."""
    for name in line.flags:
        if name in OURS:
            raise InputError(f"--{name} is a flag of the official code: here it is {OURS[name]}.")
        if name in ABSENT:
            raise InputError(f"--{name} is a flag of the official code that has no counterpart here: leave it out.")
