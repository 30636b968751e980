"""Anybody's pictures at 16x16, by class if they have classes.

    shortcut prepare FOLDER OUT --size 16
    shortcut train images16 --data OUT
    shortcut sample runs/images16 --steps 1

The number of classes follows from the data. Cost: 5.8e14 operations in all, by --dry-run, for two CPU cores;
not timed.
"""

from shortcut_models.config import Config
from shortcut_models.data.prepared import Prepared
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=Prepared(size=16),
    batch_size=64,
    max_steps=20_000,
    ema_decay=0.999,
    save_interval=2000,
    model=DiT(
        image_size=16,
        channels=3,
        num_classes=1,
        patch_size=2,
        hidden_size=128,
        depth=4,
        num_heads=4,
    ),
    objective=Shortcut(
        levels=16, step_sizes="continuous", split="random", share=0.5, flow_weight=8.0, target_decay=0.95
    ),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=500, schedule="cosine", decay_steps=20_000),
)
