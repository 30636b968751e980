"""Fashion-MNIST's 60,000 photographs of clothes at 28x28, by class: the benchmark on real images.

    apt-get install dataset-fashion-mnist    # or --data.path FOLDER, of its four IDX files
    shortcut train fashion
    shortcut evaluate runs/fashion --count 10000
    shortcut compare fashion                 # docs/results.md

40 minutes to two hours on one CPU core, by machine and what else it does. Over our classifier's features it comes to a
Fréchet distance of 55 in one step and 31 in 128, where flow matching has 164 and 20: docs/results.md. The test split,
which training never sees, is the row of real images.
"""

from shortcut_models.config import Config
from shortcut_models.data.idx import FashionMnist
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=FashionMnist(),
    batch_size=64,
    max_steps=8000,
    ema_decay=0.999,
    save_interval=1000,
    model=DiT(
        image_size=28,
        channels=1,
        num_classes=10,
        patch_size=4,
        hidden_size=128,
        depth=4,
        num_heads=4,
        scan=False,  # On a CPU the unrolled blocks are faster, and so few compile quickly.
    ),
    objective=Shortcut(
        levels=16, step_sizes="continuous", split="random", share=0.25, flow_weight=8.0, target_decay=0.95
    ),
    optimizer=Optimizer(learning_rate=2e-3, warmup_steps=200, schedule="cosine", decay_steps=8000),
)
