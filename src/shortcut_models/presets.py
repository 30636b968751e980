"""Named recipes: `shortcut train PRESET`. Each says what it is, what it costs and what to expect."""

from dataclasses import dataclass, replace

from shortcut_models.config import Config, Optimizer
from shortcut_models.errors import InputError
from shortcut_models.models.dit import DiT
from shortcut_models.objectives import ORIGINAL, Shortcut


@dataclass(frozen=True)
class Preset:
    """A configuration and its short description."""

    about: str
    config: Config


DIGITS = Config(
    dataset_name="digits",
    batch_size=64,
    max_steps=8000,
    ema_decay=0.999,
    save_interval=1000,
    model=DiT(
        image_size=8,
        channels=1,
        num_classes=10,
        patch_size=4,
        hidden_size=128,
        depth=4,
        num_heads=4,
        scan=False,  # On a CPU the unrolled blocks are faster, and so few compile quickly.
    ),
    objective=Shortcut(target_decay=0.95, flow_weight=4.0),
    optimizer=Optimizer(learning_rate=4e-3, warmup_steps=200, schedule="cosine", decay_steps=8000),
)

GLYPHS = Config(
    dataset_name="glyphs",
    batch_size=64,
    max_steps=20_000,
    ema_decay=0.999,
    save_interval=2000,
    model=DiT(
        image_size=32,
        channels=3,
        num_classes=62,
        patch_size=4,
        hidden_size=192,
        depth=6,
        num_heads=6,
        # Unrolled (scan=False), a CPU's steps are an eighth faster, but take minutes to compile.
    ),
    objective=Shortcut(target_decay=0.95, flow_weight=4.0),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=500, schedule="cosine", decay_steps=20_000),
)

_IMAGENET = Config(
    dataset_name="imagenet256-latents",
    batch_size=256,
    max_steps=800_000,
    objective=replace(ORIGINAL, guidance=1.5),
    optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1),
    log_interval=1000,
    save_interval=10_000,
)

PRESETS = {
    "digits": Preset(
        "scikit-learn's 1,797 real 8x8 digits, by class: the demo, minutes on two CPU cores",
        DIGITS,
    ),
    "glyphs": Preset(
        "62 characters in colour at 32x32, drawn without end: 1.4 s a step on one CPU core, so better on a GPU",
        GLYPHS,
    ),
    "dit-b/2": Preset(
        "the paper's DiT-B/2 on ImageNet-256 latents (131M parameters); --dry-run only, for now",
        replace(_IMAGENET, model=DiT.original(hidden_size=768, depth=12, num_heads=12)),
    ),
    "dit-xl/2": Preset(
        "the paper's DiT-XL/2 on ImageNet-256 latents (677M parameters); --dry-run only, for now",
        replace(_IMAGENET, model=DiT.original(hidden_size=1152, depth=28, num_heads=16)),
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of that name; raises InputError listing the names."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown: the presets are {', '.join(PRESETS)}.")
    return PRESETS[name]
