"""Anybody's pictures at 64x64, by class if they have classes.

    shortcut prepare FOLDER OUT --size 64
    shortcut train images64 --data OUT
    shortcut sample runs/images64 --steps 1

The number of classes follows from the data. Cost: 6.4e16 operations in all, by --dry-run, for a GPU; not yet
run.
"""

from shortcut_models.config import Config
from shortcut_models.data.prepared import Prepared
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=Prepared(size=64),
    batch_size=64,
    max_steps=20_000,
    ema_decay=0.999,
    save_interval=2000,
    model=DiT(
        image_size=64,
        channels=3,
        num_classes=1,
        patch_size=4,
        hidden_size=384,
        depth=12,
        num_heads=6,
    ),
    objective=Shortcut(
        levels=16, step_sizes="continuous", split="random", share=0.5, flow_weight=8.0, target_decay=0.95
    ),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=500, schedule="cosine", decay_steps=20_000),
)
