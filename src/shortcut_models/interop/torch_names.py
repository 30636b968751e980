"""The one network of DiT, SiT and MeanFlow's PyTorch code: its tensor names, and the same parameters in ours.

Names and shapes are those of facebookresearch/DiT (`models.py`), which willisma/SiT and
zhuyu-cs/MeanFlow took over; MeanFlow adds a second embedder, of the step. PyTorch keeps matrices as
(out, in), ours are (in, out); its images are channels first, ours last.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.interop.official import compare, stack

Params = dict[str, Any]
Tensors = dict[str, np.ndarray]

FREQUENCIES = 128
DRIFT = 1e-3
"""Averaging in float32 moves even the fixed position table, by up to 3e-4 in a long training."""


@dataclass(frozen=True)
class TorchSizes:
    """What the shapes of the tensors tell of the network; the number of heads they do not."""

    image_size: int
    patch_size: int
    channels: int
    out_channels: int
    hidden_size: int
    rows: int
    """Rows of the label table, the null label's included if there is one."""
    depth: int
    mlp_width: int
    has_step: bool
    position_dtype: str
    """What the position table was rounded to when it was saved."""

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor that such a network has."""
        h, p, m = self.hidden_size, self.patch_size, self.mlp_width
        denses = {"t_embedder.mlp.0": (h, 256), "t_embedder.mlp.2": (h, h)}
        if self.has_step:
            denses |= {"r_embedder.mlp.0": (h, 256), "r_embedder.mlp.2": (h, h)}
        for i in range(self.depth):
            block = {"attn.qkv": (3 * h, h), "attn.proj": (h, h), "mlp.fc1": (m, h), "mlp.fc2": (h, m)}
            block["adaLN_modulation.1"] = (6 * h, h)
            denses |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        denses["final_layer.linear"] = (p * p * self.out_channels, h)
        denses["final_layer.adaLN_modulation.1"] = (2 * h, h)
        shapes: dict[str, tuple[int, ...]] = {
            "pos_embed": (1, (self.image_size // p) ** 2, h),
            "x_embedder.proj.weight": (h, self.channels, p, p),
            "x_embedder.proj.bias": (h,),
            "y_embedder.embedding_table.weight": (self.rows, h),
        }
        for name, shape in denses.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes


def sizes_of(tensors: Tensors) -> TorchSizes:
    """The sizes, from the shapes; raises InputError naming every tensor that does not fit them."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != axes or not tensors[name].size:
            there = f"of shape {tensors[name].shape}" if name in tensors else "not there"
            raise InputError(f"{name} is {there}, so this is no network of DiT, SiT or MeanFlow in PyTorch's names")
        return tensors[name].shape

    hidden, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    numbers = [name.split(".")[1] for name in tensors if name.startswith("blocks.")]
    depth = 1 + max((int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 5), default=0)
    tokens = shape("pos_embed", 3)[1]
    side = round(tokens**0.5)
    if side * side != tokens or hidden % 4 or depth > len(tensors):
        raise InputError(f"its {tokens} positions of width {hidden} in {depth} blocks are no square image of DiT's")
    sizes = TorchSizes(
        image_size=side * patch,
        patch_size=patch,
        channels=channels,
        out_channels=shape("final_layer.linear.weight", 2)[0] // patch**2,
        hidden_size=hidden,
        rows=shape("y_embedder.embedding_table.weight", 2)[0],
        depth=depth,
        mlp_width=shape("blocks.0.mlp.fc1.weight", 2)[0],
        has_step=any(name.startswith("r_embedder.") for name in tensors),
        position_dtype=_rounding(tensors["pos_embed"][0], side, hidden),
    )
    compare(sizes.layout(), {name: tensor.shape for name, tensor in tensors.items()})
    if sizes.out_channels not in (channels, 2 * channels):
        raise InputError(f"its output has {sizes.out_channels} channels, but its input {channels}: once or twice fits")
    return sizes


def _rounding(table: np.ndarray, side: int, width: int) -> str:
    """What DiT's table has to be rounded to in order to be this one; raises InputError if it is another one."""
    own = position_table(side, width).astype(np.float32)
    dtypes = {name: jnp.dtype(name) for name in ("float32", "bfloat16", "float16")}
    drifts = {name: float(np.abs(table - own.astype(dtype).astype(np.float32)).max()) for name, dtype in dtypes.items()}
    best = min(drifts, key=drifts.__getitem__)
    if drifts[best] <= DRIFT:
        return best
    for name, dtype in dtypes.items():
        # Rounded after it had drifted, by up to half a spacing of numbers below 1: a quarter of eps, the one above 1.
        if drifts["float32"] <= DRIFT + float(jnp.finfo(dtype).eps) / 4 and np.array_equal(table, table.astype(dtype)):
            return name
    raise InputError(
        f"its pos_embed is up to {drifts[best]:.2g} away from DiT's table, so it was trained with another one"
    )


def position_table(side: int, width: int) -> np.ndarray:
    """DiT's fixed 2-D table (side^2, width): half of it for the column, half for the row, each sines, then cosines."""
    angles = np.arange(side)[:, None] / 10000 ** (np.arange(width // 4) / (width // 4))
    line = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.concatenate([np.tile(line, (side, 1)), np.repeat(line, side, axis=0)], axis=1)


def to_ours(tensors: Tensors, sizes: TorchSizes) -> Params:
    """The parameters in the layout of `DiT.init`, float32; they answer what the source answers, whatever the step.

    Without a step embedder of its own the last layer of ours is zero, so that it adds nothing, and the
    first one is as `DiT.init` draws it: were both zero, the run could never learn the step. Of an
    output that also predicts a variance, the first half of the channels is kept. The position table
    is left out, because ours is computed.
    """
    patch = tensors["x_embedder.proj.weight"].transpose(2, 3, 1, 0).reshape(-1, sizes.hidden_size)
    table = tensors["y_embedder.embedding_table.weight"]
    params = {
        "patch": {"kernel": patch, "bias": tensors["x_embedder.proj.bias"]},
        "time": {"in": _dense(tensors, "t_embedder.mlp.0"), "out": _dense(tensors, "t_embedder.mlp.2")},
        "step": _step(tensors, sizes),
        "label": {"table": table},
        "blocks": stack([_block(tensors, f"blocks.{i}") for i in range(sizes.depth)]),
        "final": {"modulation": _dense(tensors, "final_layer.adaLN_modulation.1"), "linear": _last(tensors, sizes)},
    }
    return as_float32(params)


def as_float32(params: Params) -> Params:
    """The same tree, in float32, each array in C order; raises InputError for numbers that are not finite."""
    return {name: as_float32(part) if isinstance(part, dict) else _finite(name, part) for name, part in params.items()}


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise InputError(f"its parameters ({name}) are {array.dtype} instead of floating-point numbers")
    with np.errstate(over="ignore"):
        own = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(own).all():
        raise InputError(f"its parameters ({name}) have numbers that are not finite")
    return own


def _dense(tensors: Tensors, name: str) -> Params:
    return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}


def _step(tensors: Tensors, sizes: TorchSizes) -> Params:
    if sizes.has_step:
        return {"in": _dense(tensors, "r_embedder.mlp.0"), "out": _dense(tensors, "r_embedder.mlp.2")}
    return silent_step(sizes.hidden_size)


def silent_step(width: int) -> Params:
    """An embedding of the step that adds nothing yet: a drawn first layer (deviation 0.02), a zero second one."""
    drawn = 0.02 * np.random.default_rng(0).standard_normal((2 * FREQUENCIES, width))
    return {
        "in": {"kernel": drawn.astype(np.float32), "bias": np.zeros(width, np.float32)},
        "out": {"kernel": np.zeros((width, width), np.float32), "bias": np.zeros(width, np.float32)},
    }


def _block(tensors: Tensors, name: str) -> Params:
    return {
        "modulation": _dense(tensors, f"{name}.adaLN_modulation.1"),
        "qkv": _dense(tensors, f"{name}.attn.qkv"),
        "out": _dense(tensors, f"{name}.attn.proj"),
        "mlp_in": _dense(tensors, f"{name}.mlp.fc1"),
        "mlp_out": _dense(tensors, f"{name}.mlp.fc2"),
    }


def _last(tensors: Tensors, sizes: TorchSizes) -> Params:
    """The last layer: rows are (patch row, patch column, channel), of which those of the first channels are kept."""

    def kept(name: str) -> np.ndarray:
        rows = tensors[f"final_layer.linear.{name}"]
        parts = rows.reshape(sizes.patch_size**2, sizes.out_channels, *rows.shape[1:])[:, : sizes.channels]
        return parts.reshape(-1, *rows.shape[1:])

    return {"kernel": kept("weight").T, "bias": kept("bias")}


def reflected(params: Params) -> Params:
    """MeanFlow's network in our convention: t' = 1 - t, and the velocity towards the data instead of the noise.

    The sign is the last layer's. The time is exact too: with w a frequency, cos(w (1 - t')) =
    cos w cos wt' + sin w sin wt' and sin(w (1 - t')) = sin w cos wt' - cos w sin wt', so the first
    layer's cosine rows c and sine rows s become cos(w) c + sin(w) s and sin(w) c - cos(w) s.
    MeanFlow (Geng et al., arXiv 2505.13447) embeds t - r beside t: our step size d, as it is.
    """
    w = np.exp(-np.log(10000.0) * np.arange(FREQUENCIES) / FREQUENCIES)[:, None]
    kernel = params["time"]["in"]["kernel"].astype(np.float64)
    c, s = kernel[:FREQUENCIES], kernel[FREQUENCIES:]
    turned = np.concatenate([np.cos(w) * c + np.sin(w) * s, np.sin(w) * c - np.cos(w) * s]).astype(np.float32)
    time = {**params["time"], "in": {**params["time"]["in"], "kernel": turned}}
    linear = {name: -part for name, part in params["final"]["linear"].items()}
    return {**params, "time": time, "final": {**params["final"], "linear": linear}}
