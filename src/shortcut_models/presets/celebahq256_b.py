"""CelebA-HQ at 256x256 without labels, with a DiT-B, as in the paper (Frans et al., arXiv 2410.12557).

    shortcut train celebahq256-b
    shortcut sample runs/celebahq256-b --steps 1

Needs CelebA-HQ as TFDS prepared it (TFDS_DATA_DIR) and the SD-VAE's file (SHORTCUT_VAE, or the hub's cache),
which encodes the images in front of every step; docs/data.md says how to encode them once instead. Batch 64,
410,000 steps, learning rate 1e-4, weight decay 0.1, one average of the weights of decay 0.999.

Cost: 4.0e18 operations, and 7.2e18 more for the encoder, or 1.5e16 if it runs once over 28,000 images and
their mirror images. At 4e14 a second, 40 % of an H100's peak in bfloat16, that would be 3 hours of one such
device, and 5 more for the encoder; not measured. The official page expects an FID of 6.9 in 128 steps, 13.8 in 4
and 20.5 in one; we have not trained it.
"""

from dataclasses import replace

from shortcut_models.config import Config
from shortcut_models.data.images import FOUND
from shortcut_models.data.tfds import CELEBAHQ256
from shortcut_models.networks.dit import DiT
from shortcut_models.objectives.shortcut import ORIGINAL
from shortcut_models.optimizer import Optimizer

PRESET = Config(
    data=replace(CELEBAHQ256, vae=FOUND),
    batch_size=64,
    max_steps=410_000,
    seed=10,
    ema_decay=0.999,
    log_interval=100,
    data_threads=16,
    save_interval=5000,
    model=replace(
        DiT.original(image_size=32, channels=4, num_classes=1, patch_size=2, hidden_size=768, depth=12, num_heads=12),
        dtype="bfloat16",
    ),
    # Every label is the null label.
    objective=ORIGINAL.without_labels(),
    optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.1, decayed="all"),
)
