"""3,786 emoji (Twemoji) at 16x16, in nine categories and one of skin tones: pictures in colour.

    python examples/emoji.py emoji
    shortcut prepare emoji emoji-16 --size 16 --alpha white
    shortcut train emoji --data emoji-16

docs/emoji.md has samples and numbers: an hour and a half on one CPU core.
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
    save_interval=1000,
    model=DiT(
        image_size=16,
        channels=3,
        num_classes=10,
        patch_size=4,
        hidden_size=128,
        depth=4,
        num_heads=4,
        scan=False,  # On a CPU the unrolled blocks are faster, and so few compile quickly.
    ),
    objective=Shortcut(
        levels=16, step_sizes="continuous", split="random", share=0.5, flow_weight=8.0, target_decay=0.95
    ),
    optimizer=Optimizer(learning_rate=3e-3, warmup_steps=200, schedule="cosine", decay_steps=20_000),
)
