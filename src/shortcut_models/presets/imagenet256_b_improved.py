"""As imagenet256-b, with most of the remedies of docs/ladder.md: nobody has trained it yet.

    shortcut train imagenet256-b-improved

The remedies are those of celebahq256-b-improved, with the paper's guidance of 1.5 in the targets, without which
few-step samples of ImageNet are poor. Found on 8x8 digits; whether they hold here, nobody knows. Expected FID:
below imagenet256-b's 40.3 in one step, or the remedies do not carry over.
"""

from dataclasses import replace

from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.optimizer import Optimizer
from shortcut_models.presets.imagenet256_b import PRESET as PAPER

PRESET = replace(
    PAPER,
    model=DiT(num_classes=1000, hidden_size=768, depth=12, num_heads=12, dtype="bfloat16"),
    objective=Shortcut(guidance=1.5),
    optimizer=Optimizer(learning_rate=1e-4, warmup_steps=5000, schedule="cosine", decay_steps=PAPER.max_steps),
)
