"""ImageNet at 256x256 with a DiT-XL, as in the paper (Frans et al., arXiv 2410.12557).

    shortcut train imagenet256-xl --sharding fsdp
    shortcut sample runs/imagenet256-xl --steps 1

As imagenet256-b, with a larger network. Cost: 1.6e20 operations, besides the encoder's: 115 hours of one
device that does 4e14 a second, 40 % of an H100's peak in bfloat16; not measured. The official page expects an FID of
3.8 in 128 steps, 7.8 in 4 and 10.6 in one; we have not trained it.
"""

from dataclasses import replace

from shortcut_models.networks.dit import DiT
from shortcut_models.presets.imagenet256_b import PRESET as SMALLER

PRESET = replace(
    SMALLER,
    model=replace(
        DiT.original(
            image_size=32, channels=4, num_classes=1000, patch_size=2, hidden_size=1152, depth=28, num_heads=16
        ),
        dtype="bfloat16",
    ),
)
