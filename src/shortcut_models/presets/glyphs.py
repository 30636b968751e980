"""62 characters in colour at 32x32, drawn without end: for a GPU.

    shortcut train glyphs

1.4 s a step on one CPU core, so that the 20,000 steps are eight hours there; not yet run on a GPU.
"""

from shortcut_models.config import Config
from shortcut_models.data.glyphs import Glyphs
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=Glyphs(),
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
