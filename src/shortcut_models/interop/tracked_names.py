"""What the official code tells W&B: its `--wandb.` flags, and its names of a training's numbers."""

import re
import string
from typing import Any

from shortcut_models.errors import InputError

NAMES = {
    "loss": "training/loss",
    "error/d=0": "training/loss_flow",
    "loss_valid": "training/loss_valid",
    "gradient_norm": "training/grad_norm",
    "learning_rate": "training/lr",
}
JUMP = re.compile(r"error/d(?!=0$).*")
FID = re.compile(r"fid-\w+-\d+/steps=(\d+)(-guided)?")


def original_names(row: dict[str, float]) -> dict[str, float]:
    """A row of metrics under the official code's names, where it has one; ours are kept for what it does not log.

    >>> original_names({"loss": 2.0, "error/d=0": 3.0, "error/d=1": 0.5, "error/d=1/2": 1.5, "images": 64})
    {'training/loss': 2.0, 'training/loss_flow': 3.0, 'images': 64, 'training/loss_bootstrap': 1.0}
    >>> original_names({"fid-paper-4096/steps=4": 9.0, "fid-paper-4096/steps=128-guided": 7.0})
    {'fid/timesteps/4': 9.0, 'fid/timesteps/cfg': 7.0}

    loss_bootstrap, the error of all jumps, is the mean over step sizes here, each of which has as many rows.
    """
    found, jumps = {}, []
    for name, value in row.items():
        if JUMP.fullmatch(name):
            jumps.append(value)
        elif measured := FID.fullmatch(name):
            found[f"fid/timesteps/{'cfg' if measured[2] else measured[1]}"] = value
        else:
            found[NAMES.get(name, name)] = value
    return found | ({"training/loss_bootstrap": sum(jumps) / len(jumps)} if jumps else {})


def variables(flags: dict[str, Any]) -> dict[str, str]:
    """What the `--wandb.` flags ask for, as W&B's own environment variables, which its client and `tracking` read.

    `flags` are all of them, by name. A name may hold other flags in braces, the model's without their "model.", as in
    {dataset_name}_{train_type}. Raises InputError for one that cannot be made, and for flags that contradict.
    """
    own = {name.removeprefix("wandb."): value for name, value in flags.items() if name.startswith("wandb.")}
    if own["group"] and own["exp_prefix"] not in (None, own["group"]):
        raise InputError("--wandb.exp_prefix is an older name of --wandb.group: give one of them.")
    wanted = own["exp_descriptor"] or own["name"]
    if own["exp_descriptor"] and own["name"] not in (DEFAULT_NAME, wanted):
        raise InputError("--wandb.exp_descriptor is an older name of --wandb.name: give one of them.")
    found = {"WANDB_PROJECT": own["project"], "WANDB_NAME": _filled_in(wanted, flags)}
    if group := own["group"] or own["exp_prefix"]:
        found["WANDB_RUN_GROUP"] = group
    if own["entity"]:
        found["WANDB_ENTITY"] = own["entity"]
    if own["offline"]:
        found["WANDB_MODE"] = "offline"
    if own["run_id"] != "None":
        if own["unique_identifier"]:
            raise InputError("--wandb.run_id names the run that goes on, which has its identifier: leave that out.")
        found |= {"WANDB_RUN_ID": own["run_id"], "WANDB_RESUME": "must"}
    elif own["unique_identifier"]:
        found["WANDB_RUN_ID"] = f"{found['WANDB_NAME']}_{own['unique_identifier']}"
    return found


DEFAULT_NAME = "shortcut_{dataset_name}"


def _filled_in(wanted: str, flags: dict[str, Any]) -> str:
    known = {name.removeprefix("model."): value for name, value in flags.items() if not name.startswith("wandb.")}
    known["model"] = {name.removeprefix("model."): value for name, value in flags.items() if name.startswith("model.")}
    try:
        return string.Formatter().vformat(wanted, (), known)
    except (LookupError, ValueError, AttributeError) as error:
        raise InputError(
            f"--wandb.name {wanted} cannot be filled in ({error}): braces hold the name of a flag, as in "
            "{dataset_name}_{train_type}."
        ) from error
