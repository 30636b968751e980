"""ImageNet at 256x256 with a DiT-B, as in the paper (Frans et al., arXiv 2410.12557).

    shortcut train imagenet256-b
    shortcut sample runs/imagenet256-b --steps 1

Needs ImageNet as TFDS prepared it (TFDS_DATA_DIR) and the SD-VAE's file (SHORTCUT_VAE, or the hub's cache),
which encodes the images in front of every step; docs/data.md says how to encode them once instead. Batch 256,
810,000 steps, learning rate 1e-4, weight decay 0.1, one average of the weights of decay 0.999, targets guided by
1.5.

Cost: 3.2e19 operations, and 5.7e19 more for the encoder, or 7e17 if it runs once over 1.28 million images and
their mirror images. At 4e14 a second, 40 % of an H100's peak in bfloat16, that would be 22 hours of one such
device, and 39 more for the encoder; not measured. A core decodes some 400 images a second: 144 hours of one core,
unless they are encoded once. The official page expects an FID of 15.5 in 128 steps, 28.3 in 4 and 40.3 in one; we
have not trained it.
"""

from dataclasses import replace

from shortcut_models.config import Config
from shortcut_models.data.images import FOUND
from shortcut_models.data.tfds import IMAGENET256
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import ORIGINAL
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=replace(IMAGENET256, vae=FOUND),
    batch_size=256,
    max_steps=810_000,
    seed=10,
    ema_decay=0.999,
    log_interval=100,
    data_threads=16,
    save_interval=5000,
    model=replace(
        DiT.original(
            image_size=32, channels=4, num_classes=1000, patch_size=2, hidden_size=768, depth=12, num_heads=12
        ),
        dtype="bfloat16",
    ),
    objective=replace(ORIGINAL, guidance=1.5),
    optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1, decayed="all"),
)
