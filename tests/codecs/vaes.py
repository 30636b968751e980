"""VAE files of random weights, published or tiny."""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from shortcut_models.codecs.sd_vae_network import Architecture, layout

TINY = Architecture(widths=(8, 16), layers=1, channels=4, groups=4)
CONFIG = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
NAME = "diffusion_pytorch_model.safetensors"


def weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The weights that the golden values were computed with."""
    r = np.random.default_rng([zlib.crc32(name.encode()), seed])
    if name.endswith("bias"):
        return (0.1 * r.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:
        return r.uniform(0.5, 1.5, shape).astype(np.float32)
    return (r.standard_normal(shape) * np.sqrt(1.5 / np.prod(shape[1:]))).astype(np.float32)


def tiny_weights(seed: int = 0) -> dict[str, np.ndarray]:
    return {name: weight(name, shape, seed) for name, shape in layout(TINY).items()}


def write_tiny(folder: Path, tensors: dict[str, np.ndarray] | None = None, **config: object) -> Path:
    """A folder as diffusers saves it; returns the file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file(tiny_weights() if tensors is None else tensors, folder / NAME)
    return folder / NAME


def write_small(folder: Path, seed: int = 0) -> Path:
    """As few weights as can be with the published factor of 8, for images of 256x256."""
    sizes = Architecture(widths=(4, 4, 4, 4), layers=1, channels=4, groups=2)
    tensors = {name: weight(name, shape, seed) for name, shape in layout(sizes).items()}
    return write_tiny(folder, tensors, block_out_channels=list(sizes.widths), norm_num_groups=sizes.groups)
