"""2-D points on a few shapes, by class, with a perceptron: the whole of the method in seconds.

    shortcut train points, then shortcut evaluate runs/points

A quarter of a minute on two CPU cores.
"""

from shortcut_models.config import Config
from shortcut_models.data.points import Points
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer

_DATA = Points()

PRESET = Config(
    data=_DATA,
    batch_size=128,
    max_steps=2000,
    ema_decay=0.999,
    save_interval=1000,
    model=MLP(dimensions=2, hidden_size=128, depth=3, num_classes=_DATA.num_classes),
    objective=Shortcut(target_decay=0.95, flow_weight=4.0, levels=16, step_sizes="continuous", split="random"),
    optimizer=Optimizer(learning_rate=4e-3, warmup_steps=100, schedule="cosine", decay_steps=2000),
)
