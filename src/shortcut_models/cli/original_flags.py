"""Flags of the official code (kvfrans/shortcut-models, `train.py`) and where their meaning is found here.

`shortcut` speaks one dialect: for a flag of the official code's that is none of ours, the refusal names ours.
"""

from shortcut_models.cli.parsing import Line
from shortcut_models.errors import InputError

OURS = {
    "save_dir": "--run-dir",
    "load_dir": "--run-dir, for a run that goes on from its last checkpoint, or --start-from, for others' weights",
    "eval_interval": "--evaluate-every and --figures-every, in images",
    "fid_stats": "--stats, with --metrics fid-paper",
    "mode": "`shortcut sample` or `shortcut evaluate`",
    "debug_overfit": "--data.first, such as 8",
    "wandb.project": "--tracker wandb, with the variable WANDB_PROJECT",
    "wandb.name": "--tracker wandb, with the variable WANDB_NAME; else the run has the name of its folder",
    "wandb.exp_descriptor": "--tracker wandb, with the variable WANDB_NAME; else the run has the name of its folder",
    "wandb.entity": "--tracker wandb, with the variable WANDB_ENTITY",
    "wandb.group": "--tracker wandb, with the variable WANDB_RUN_GROUP",
    "wandb.exp_prefix": "--tracker wandb, with the variable WANDB_RUN_GROUP",
    "wandb.offline": "--tracker wandb, with the variable WANDB_MODE",
    "wandb.run_id": "--tracker wandb, with the variable WANDB_RUN_ID; a run that goes on finds its own",
    "wandb.unique_identifier": "--tracker wandb, with the variable WANDB_RUN_ID",
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
    "model.bootstrap_dt_bias": "--objective.longer",
    "model.use_stable_vae": "--data.vae, found for the one that SHORTCUT_VAE names, empty for pixels",
    "model.bootstrap_ema": "--objective.target-decay none, or --objective.teacher-weights raw: targets by raw weights",
    "model.bootstrap_cfg": "--objective.guidance, above 1 for guided targets",
    "model.cfg_scale": "--objective.guidance in training, --guidance in sampling",
    "model.train_type": "--objective, such as --objective shortcut-original",
    "model.sharding": "--sharding",
    "model.use_ema": "--weights ema or raw, when sampling",
    "model.num_timesteps": "--steps, when sampling",
    "inference_timesteps": "--steps, when sampling",
    "inference_generations": "--count, when sampling",
    "inference_cfg_scale": "--guidance, when sampling",
}
"""The official flag, and ours for the same."""

ABSENT = ("model.dropout", "model.t_sampling", "model.dt_sampling", "wandb.random_delay")
"""Official flags that have no counterpart."""


def check_original(line: Line) -> None:
    """Raise InputError, naming ours, for a flag of the official code's."""
    for name in line.flags:
        if name in OURS:
            raise InputError(f"--{name} is a flag of the official code: here it is {OURS[name]}.")
        if name in ABSENT:
            raise InputError(f"--{name} is a flag of the official code that has no counterpart here: leave it out.")
