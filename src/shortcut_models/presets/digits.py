"""scikit-learn's 1,797 real 8x8 digits, by class: the demo.

    make demo        # or: shortcut train digits, then shortcut evaluate runs/digits

Minutes on two CPU cores; benchmarks/results/demo.json has the numbers to expect.
"""

from shortcut_models.config import Config
from shortcut_models.data.digits import Digits
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=Digits(),
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
    # Chains of four bootstraps lose less than seven; half the batch learns jumps, of any length, from any two, and of
    # every length as often.
    objective=Shortcut(
        levels=16,
        step_sizes="continuous",
        longer=True,
        split="random",
        share=0.5,
        flow_weight=8.0,
        target_decay=0.95,
    ),
    optimizer=Optimizer(learning_rate=4e-3, warmup_steps=200, schedule="cosine", decay_steps=8000),
)
