"""Anybody's pictures at 32x32, by class if they have classes.

    shortcut prepare FOLDER OUT --size 32
    shortcut train images32 --data OUT
    shortcut sample runs/images32 --steps 1

The number of classes follows from the data. Cost: 8.9e15 operations in all, by --dry-run, for two patient CPU
cores, or a GPU; not yet run.
"""

from shortcut_models.config import Config
from shortcut_models.data.prepared import Prepared
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=Prepared(size=32),
    batch_size=64,
    max_steps=20_000,
    ema_decay=0.999,
    save_interval=2000,
    model=DiT(
        image_size=32,
        channels=3,
        num_classes=1,
        patch_size=2,
        hidden_size=192,
        depth=6,
        num_heads=6,
    ),
    objective=Shortcut(
        levels=16, step_sizes="continuous", split="random", share=0.5, flow_weight=8.0, target_decay=0.95
    ),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=500, schedule="cosine", decay_steps=20_000),
)
