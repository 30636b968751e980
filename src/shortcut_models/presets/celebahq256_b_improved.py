"""As celebahq256-b, with most of the remedies of docs/ladder.md: nobody has trained it yet.

    shortcut train celebahq256-b-improved

What the ladder found on 8x8 digits: a quicker average for the targets, jumps on a quarter of the batch, the
adaptive weight on them, logit-normal times, no clipping, no weight decay; a network that is told d smoothly, times
ten, with normed queries and keys, and blocks that start as identity; averages that grow from the first step; a
warm-up and a cosine, here up to the paper's learning rate. Left out are 16 levels instead of 128, jumps of any
length, and half of the batch for jumps with a flow weight of 8. Whether they hold for faces at 256x256, nobody
knows: compare it with celebahq256-b, which costs the same but for the larger share of jumps (8 % more arithmetic,
by --dry-run). Expected FID: below that recipe's 20.5 in one step, or the remedies do not carry over.
"""

from dataclasses import replace

from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer
from shortcut_models.presets.celebahq256_b import PRESET as PAPER

PRESET = replace(
    PAPER,
    model=DiT(num_classes=1, hidden_size=768, depth=12, num_heads=12, dtype="bfloat16"),
    objective=Shortcut().without_labels(),
    optimizer=Optimizer(learning_rate=1e-4, warmup_steps=5000, schedule="cosine", decay_steps=PAPER.max_steps),
)
