"""Which values the official code's flags take, and which of them contradict each other.

What `flags` would find out later is told here in the names that were typed, and whatever the mode: a value that no mode
takes is a slip, also where it is not read.
"""

from dataclasses import replace
from typing import Any

from shortcut_models.errors import InputError
from shortcut_models.files import check_local

FROM_0 = (
    *("seed", "eval_interval", "data_threads", "model.warmup", "model.weight_decay", "model.beta1", "model.beta2"),
    *("model.target_update_rate", "model.class_dropout_prob", "wandb.random_delay"),
)
FROM_1 = (
    *("batch_size", "max_steps", "log_interval", "save_interval", "inference_timesteps", "inference_generations"),
    *("model.hidden_size", "model.patch_size", "model.depth", "model.num_heads", "model.num_classes"),
    "model.denoise_timesteps",
)
ABOVE_0 = ("model.lr", "model.mlp_ratio")
BELOW_1 = ("model.beta1", "model.beta2", "model.target_update_rate")
UP_TO_1 = ("model.class_dropout_prob",)
PLACES = ("load_dir", "save_dir", "fid_stats", "inception")


def check_ranges(flags: dict[str, Any]) -> None:
    """Raise InputError for a number that its flag does not take, and for a place out of reach."""
    for name in PLACES:
        check_local(f"--{name}", flags[name] or "")
    for names, fits, bound in (
        (FROM_0, lambda value: value >= 0, "at least 0"),
        (FROM_1, lambda value: value >= 1, "at least 1"),
        (ABOVE_0, lambda value: value > 0, "above 0"),
        (BELOW_1, lambda value: value < 1, "below 1"),
        (UP_TO_1, lambda value: value <= 1, "at most 1"),
    ):
        for name in names:
            if not fits(flags[name]):
                raise InputError(f"--{name} is {flags[name]}, but must be {bound}.")


def check_training(flags: dict[str, Any], objective: Any) -> None:
    """Raise InputError for flags that no training can follow together."""
    steps, warmup = flags["max_steps"], flags["model.warmup"]
    if flags["model.use_cosine"] and steps <= warmup:
        raise InputError(
            f"--max_steps is {steps}, but must be above --model.warmup {warmup}, after which --model.use_cosine 1 lets "
            "the learning rate fall: train longer, or warm up in fewer steps."
        )
    if not hasattr(objective, "share"):
        return
    every, batch = flags["model.bootstrap_every"], flags["batch_size"]
    try:
        replace(objective, guidance=1.0).check(batch, steps * batch)  # Without guidance, of its share alone.
    except InputError:
        raise InputError(
            f"--model.bootstrap_every {every} lets one image in {every} learn jumps and the others the velocity, but "
            f"--batch_size {batch} has none for one of the two: raise --batch_size, or lower --model.bootstrap_every."
        ) from None
