"""`python train.py --help`: what each flag of the official code means, there and here."""

import re

from shortcut_models.cli import original_flags, parsing

ABOUT = {
    "dataset_name": "imagenet256, celebahq256, lsunchurch or another name of TFDS; or the path of data.",
    "load_dir": "Checkpoint of the official code, or run, to start from, draw from, or take as the teacher.",
    "save_dir": "Run folder, or the place of what is drawn.",
    "fid_stats": "Statistics (.npz, of mu and sigma) that FID is measured against; without, none is.",
    "seed": "Of weights, data order, noise and times.",
    "log_interval": "Steps between logged metrics.",
    "eval_interval": "Steps between figures and FIDs of 4,096 samples; 0 is never.",
    "save_interval": "Steps between checkpoints.",
    "batch_size": "Images per step, over all devices.",
    "max_steps": "Steps to train.",
    "debug_overfit": "1 trains on the first few images alone.",
    "mode": "train; interpolate draws samples between two noises; anything else draws samples, and measures FID.",
    "inference_timesteps": "Network calls per sample.",
    "inference_generations": "Number of samples.",
    "inference_cfg_scale": "Guidance; 1 is none, 0 draws of no class.",
    "model.lr": "Learning rate.",
    "model.beta1": "Of Adam.",
    "model.beta2": "Of Adam.",
    "model.weight_decay": "Of every parameter.",
    "model.use_cosine": "1 lets the learning rate fall to 0 along a cosine.",
    "model.warmup": "Steps in which the learning rate rises from 0.",
    "model.dropout": "Refused, but for 0: the network has none.",
    "model.hidden_size": "Width of a token.",
    "model.patch_size": "Side of the patches that become tokens.",
    "model.depth": "Number of transformer blocks.",
    "model.num_heads": "Attention heads in each block.",
    "model.mlp_ratio": "Width of a block's hidden layer, in hidden_sizes.",
    "model.class_dropout_prob": "Share of labels that are dropped.",
    "model.num_classes": "Number of labels.",
    "model.denoise_timesteps": "Levels: the finest step is one in so many.",
    "model.cfg_scale": "Guidance of the targets where bootstrap_cfg is 1, and of evaluations; 0 drops every label.",
    "model.target_update_rate": "Decay per step of the averaged weights.",
    "model.use_ema": "1 measures and draws by the averaged weights, 0 by the last ones.",
    "model.use_stable_vae": "1 trains on latents of the SD-VAE, 0 on pixels.",
    "model.sharding": "dp copies the weights to every device, fsdp spreads them.",
    "model.t_sampling": "Not read by the official code, and refused but for its default.",
    "model.dt_sampling": "Not read by the official code, and refused but for its default.",
    "model.bootstrap_cfg": "1 guides the targets of the finest jumps.",
    "model.bootstrap_every": "One in so many images learns jumps.",
    "model.bootstrap_ema": "1 makes targets by the averaged weights.",
    "model.bootstrap_dt_bias": "1 draws the two longest jumps more often.",
    "model.train_type": "shortcut, naive, progressive, consistency, consistency-distillation or livereflow.",
    "wandb.project": "Project on W&B, to which a run goes if any of these flags is given.",
    "wandb.name": "Name of the run, in which {flag} stands for a flag's value.",
    "wandb.run_id": "Run to go on with.",
    "wandb.offline": "1 keeps the run on this machine.",
    "wandb.entity": "User or team.",
    "wandb.group": "Group of runs.",
    "wandb.exp_prefix": "Older name of the group.",
    "wandb.exp_descriptor": "Older name of the name.",
    "wandb.unique_identifier": "End of the run's id.",
    "wandb.random_delay": "Seconds to wait at most, at random, before the start.",
    "objective.overlap": "1 uses a batch's images as the official code does: those of the jumps twice.",
    "data_threads": "Threads that read and decode images ahead.",
    "inception": "Inception's weights, for FID; by default SHORTCUT_INCEPTION, or the hub's cache.",
    "any_inception": "1 takes an Inception file with another hash than the published one.",
}
"""A sentence about each flag, its default not included."""

HELP = """\
usage: python train.py [--FLAG VALUE ...]

The command line of the official code: its flags mean what they mean there. It prints the `shortcut train`
command that does the same, and trains.

{flags}

Besides, of ours:

{ours}
"""


def usage(flags: dict[str, bool | int | float | str | None], ours: dict[str, bool | int | float | str | None]) -> str:
    """The help text; what is given are the flags and their defaults, the official code's and ours."""

    def line(name: str, default: bool | int | float | str | None) -> str:
        shown = f" ({parsing.write(default)})" if default not in (None, "", "None") else ""
        return parsing.entry(f"--{name}", ABOUT[name] + shown)

    shown = ["\n".join(line(name, default) for name, default in table.items()) for table in (flags, ours)]
    return HELP.format(flags=shown[0], ours=shown[1])


SAME = {ours: f"--{name}" for name, ours in original_flags.OURS.items() if re.fullmatch(r"--[\w.-]+", ours)}
THEIRS = SAME | {
    "--data": "--dataset_name",
    "--data.vae": "SHORTCUT_VAE",
    "--start-from": "--load_dir",
    "--start-optimizer": "--wandb.run_id",
    "--out": "--save_dir",
    "--steps": "--inference_timesteps",
    "--count": "--inference_generations",
    "--stats": "--fid_stats",
}
"""What the official code calls flags of ours, or what else a user of its flags can set."""
SETTINGS = (
    {ours[2:].replace("-", "_"): name for ours, name in SAME.items() if "." in ours}
    # Names without a dot or `_` are words too.
    | {name: f"--{name}" for name in ABOUT if re.search(r"[._]", name)}
    | {
        "num_heads": "--model.num_heads",
        "ema_decay": "--model.target_update_rate",
        "objective.target_decay": "--model.bootstrap_ema or --model.target_update_rate",
        "objective.times.grid": "--model.denoise_timesteps",
        "objective.guidance": "--model.cfg_scale",
        "objective.share": "1 / --model.bootstrap_every",
        "optimizer.decay_steps": "--max_steps",
    }
)
"""The official code's flags for settings of ours, which refusals name without dashes."""
PHRASES = {
    r"--latents (\w+)": r"--dataset_name \1-latents:PATH",
    r"(--objective\.\S+ \S+ )+to train without labels": "--model.cfg_scale 0 to train without labels",
    r", or --model\.step-conditioning smooth": "",
    r"pixels \(--data\.vae ''\)": "pixels (--model.use_stable_vae 0)",
    r"leave --weights( raw)? out": "give --model.use_ema 1",
    r"give num_heads \(.*--model\.num-heads\)": "give --model.num_heads",
    r"^objective (\S+ distils .*) with an objective that learns the velocity": (
        r"--model.train_type \1 with --model.train_type naive"
    ),
    r"^seed is": "--seed is",
    r"^steps is": "--inference_timesteps is",
    r"^guidance is (.*)use guidance 1": r"--inference_cfg_scale is \1use --inference_cfg_scale 1",
    r"use guidance 1": "use --model.cfg_scale 1",
}
"""What has no word for word in the official code's flags."""
WORD = re.compile(r"`[^`]*`|(?<![^\s(])(?:--)?[a-z][\w.-]*\w(?![\w/-]|\.\w)")
"""A command of ours, which stays as it is; a flag; or what may be a setting, and is no part of a path."""


def in_their_words(sentence: str) -> str:
    """A refusal with the official code's flags in place of ours, and `_` in them, as they were typed."""

    def theirs(found: re.Match[str]) -> str:
        word = found[0]
        return THEIRS.get(word, "--" + word[2:].replace("-", "_")) if word[:2] == "--" else SETTINGS.get(word, word)

    for ours, phrase in PHRASES.items():
        sentence = re.sub(ours, phrase, sentence)
    return WORD.sub(theirs, sentence).replace("SHORTCUT_VAE or SHORTCUT_VAE", "SHORTCUT_VAE")
