"""As imagenet256-xl, with most of the remedies of docs/ladder.md: nobody has trained it yet.

    shortcut train imagenet256-xl-improved --sharding fsdp

As imagenet256-b-improved, with a larger network. Expected FID: below imagenet256-xl's 10.6 in one step, or the
remedies do not carry over.
"""

from dataclasses import replace

from shortcut_models.networks.dit import DiT
from shortcut_models.presets.imagenet256_b_improved import PRESET as SMALLER

PRESET = replace(SMALLER, model=DiT(num_classes=1000, hidden_size=1152, depth=28, num_heads=16, dtype="bfloat16"))
