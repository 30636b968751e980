"""What the official code calls the numbers of a training on W&B, for its command line; see its `train.py`."""

import re

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
