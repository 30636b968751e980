"""Reading an SD-VAE's published safetensors file: every tensor under its own name, none missing, none left over."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from shortcut_models.codecs.sd_vae import SCALE, SDVAE
from shortcut_models.codecs.sd_vae_network import Architecture, layout
from shortcut_models.errors import InputError
from shortcut_models.interop import hub

REPOSITORY = "stabilityai/sd-vae-ft-mse"
FILENAME = "diffusion_pytorch_model.safetensors"
VARIABLE = "SHORTCUT_VAE"
DTYPES = ("float32", "bfloat16")

_TODAY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention's names up to diffusers 0.17, which the published files have, and since."""


def find_vae(path: str | Path | None = None, flag: str | None = "--vae") -> Path:
    """The VAE's file: `path` (a file or its folder), else SHORTCUT_VAE, else sd-vae-ft-mse by the hub's cache.

    `flag` is what messages call the way to give `path`; None where a command has none.
    """
    return hub.find(REPOSITORY, FILENAME, path=path, variable=VARIABLE, flag=flag)


def load_vae(file: str | Path, *, dtype: str = "float32") -> SDVAE:
    """Load the published safetensors file of an SD-VAE (`sd-vae-ft-mse`, `-ema`, or one of their layout).

    A config.json of diffusers' beside it may give other sizes and another scale. `dtype` is what it
    computes in: bfloat16 is quicker on GPUs and TPUs; float32 products are exact everywhere.

    Raises InputError, naming the tensor, if one is missing, left over, or of another shape or dtype,
    and if the file is missing, truncated, or no safetensors file.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown to the VAE: use {' or '.join(DTYPES)}.")
    path = Path(file)
    path = path / FILENAME if path.is_dir() else path
    tensors = _canonical(path, _read(path))
    architecture, scale = _config(path.with_name("config.json"))
    _check(path, tensors, architecture)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return SDVAE(
        params={name: _ours(array) for name, array in tensors.items()},
        architecture=architecture,
        scale=scale,
        identity=identity(tensors),
        file_sha256=digest,
        dtype=dtype,
    )


def identity(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over today's names, sorted, each followed by a zero byte and its float32 values, little-endian."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(tensors[name], "<f4").data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} is not there: give the safetensors file of an SD-VAE, such as {REPOSITORY}'s.")
    try:
        with safe_open(path, framework="numpy") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as a safetensors file ({str(error).rstrip('.')}): it is truncated, damaged, or of "
            "another kind; download it again."
        ) from None


def _canonical(path: Path, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under today's names, attention's as matrices, all float32."""
    tensors = {}
    for old, array in stored.items():
        before, _, last = old.rpartition(".")
        stem, _, part = before.rpartition(".")
        is_old = ".attentions." in old and part in _TODAY
        name = f"{stem}.{_TODAY[part]}.{last}" if is_old else old
        if name in tensors:
            raise InputError(f"{path} holds {name} twice, under its old and its new name: use a file with one of them.")
        if array.dtype not in (np.float16, np.float32):
            raise InputError(f"{path} holds {old} as {array.dtype}, but float32 or float16 is needed.")
        if ".attentions." in name and array.ndim == 4 and array.shape[2:] == (1, 1):
            array = array[:, :, 0, 0]
        tensors[name] = np.asarray(array, np.float32)
    return tensors


def _check(path: Path, tensors: dict[str, np.ndarray], architecture: Architecture) -> None:
    expected = layout(architecture)
    for what, names in (("lacks", expected.keys() - tensors.keys()), ("also holds", tensors.keys() - expected.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path} {what} {min(names)}{more}: it is no SD-VAE of {len(expected)} tensors.")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise InputError(f"{path} holds {name} in shape {tensors[name].shape}, but an SD-VAE has {shape}.")
        if not np.isfinite(tensors[name]).all():
            raise InputError(f"{path} holds {name} with values that are no numbers: download it again.")


def _config(path: Path) -> tuple[Architecture, float]:
    """Sizes and scale by a config.json of diffusers', or else those of the published files."""
    try:
        stored: Any = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        stored = {}  # Not diffusers': it always writes whole JSON.
    if not isinstance(stored, dict) or stored.get("_class_name") != "AutoencoderKL":
        return Architecture(), SCALE
    if stored.get("shift_factor"):
        raise InputError(f"{path} has a shift_factor of {stored['shift_factor']}: VAEs that shift are not supported.")
    try:
        usual = Architecture()
        widths = tuple(int(width) for width in stored.get("block_out_channels", usual.widths))
        layers, channels, groups = (
            int(stored.get(name, default))
            for name, default in (
                ("layers_per_block", usual.layers),
                ("latent_channels", usual.channels),
                ("norm_num_groups", usual.groups),
            )
        )
        scale = float(stored.get("scaling_factor", SCALE))
    except (TypeError, ValueError):
        raise InputError(f"{path} is no config of diffusers' AutoencoderKL: a size in it is no number.") from None
    return Architecture(widths=widths, layers=layers, channels=channels, groups=groups), scale


def _ours(array: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, height, width) as (height, width, in, out), and (out, in) as (in, out)."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    return np.ascontiguousarray(array.T)
