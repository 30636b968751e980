"""The one network of SiT, DiT and MeanFlow in NumPy and float64, by their tensors' names, for sizes of one's own."""

import math

import numpy as np

Tensors = dict[str, np.ndarray]


def draw(
    seed: int,
    *,
    side: int,
    patch: int,
    channels: int,
    width: int,
    depth: int,
    hidden: int,
    rows: int,
    out: int = 1,
    step: bool = False,
) -> Tensors:
    """Random tensors, float32, none of them zero; `out` times the channels come out."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"x_embedder.proj": (width, channels, patch, patch)}
    for name in ("t", "r") if step else ("t",):
        shapes |= {f"{name}_embedder.mlp.0": (width, 256), f"{name}_embedder.mlp.2": (width, width)}
    for i in range(depth):
        shapes |= {f"blocks.{i}.attn.qkv": (3 * width, width), f"blocks.{i}.attn.proj": (width, width)}
        shapes |= {f"blocks.{i}.mlp.fc1": (hidden, width), f"blocks.{i}.mlp.fc2": (width, hidden)}
        shapes |= {f"blocks.{i}.adaLN_modulation.1": (6 * width, width)}
    shapes |= {"final_layer.adaLN_modulation.1": (2 * width, width)}
    shapes |= {"final_layer.linear": (patch * patch * channels * out, width)}
    found = {"pos_embed": positions(side // patch, width)[None]}
    found["y_embedder.embedding_table.weight"] = random.standard_normal((rows, width))
    for name, shape in shapes.items():
        found[f"{name}.weight"] = random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
        found[f"{name}.bias"] = 0.3 * random.standard_normal(shape[0])
    return {name: array.astype(np.float32) for name, array in found.items()}


def positions(side: int, width: int) -> np.ndarray:
    """(side^2, width): the column in the first half, the row in the second, sines before cosines."""
    frequencies = 10000.0 ** -(np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(side * side), side)
    parts = [wave(place[:, None] * frequencies) for place in (column, row) for wave in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1)


def answer(p: Tensors, x: np.ndarray, label: np.ndarray, heads: int, **times: np.ndarray) -> np.ndarray:
    """What comes out, (batch, side, side, channels): `times` are t, and r where there is an embedder of that name."""
    p = {name: array.astype(np.float64) for name, array in p.items()}
    width, channels, patch, _ = p["x_embedder.proj.weight"].shape
    batch, side = len(x), x.shape[1] // patch

    def dense(name: str, value: np.ndarray) -> np.ndarray:
        return value @ p[f"{name}.weight"].reshape(len(p[f"{name}.bias"]), -1).T + p[f"{name}.bias"]

    def embedded(name: str, time: np.ndarray) -> np.ndarray:
        angle = time[:, None] * np.exp(-math.log(10000) * np.arange(128) / 128)
        wave = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        return dense(f"{name}_embedder.mlp.2", silu(dense(f"{name}_embedder.mlp.0", wave)))

    def mixed(name: str, value: np.ndarray) -> np.ndarray:
        qkv = dense(f"{name}.qkv", value).reshape(batch, -1, 3, heads, width // heads)
        query, key, value = np.moveaxis(qkv, 2, 0)
        weights = np.exp(np.einsum("bihc,bjhc->bhij", query, key) / math.sqrt(width // heads))
        shares = weights / weights.sum(axis=-1, keepdims=True)
        return dense(f"{name}.proj", np.einsum("bhij,bjhc->bihc", shares, value).reshape(batch, -1, width))

    # Of a convolution's weights an input is (channel, row, column).
    pieces = x.reshape(batch, side, patch, side, patch, channels).transpose(0, 1, 3, 5, 2, 4)
    tokens = dense("x_embedder.proj", pieces.reshape(batch, side * side, -1)) + p["pos_embed"]
    told = silu(sum(embedded(*item) for item in times.items()) + p["y_embedder.embedding_table.weight"][label])
    for i in range(sum(name.endswith("attn.qkv.bias") for name in p)):
        parts = np.split(dense(f"blocks.{i}.adaLN_modulation.1", told)[:, None], 6, axis=2)
        tokens = tokens + parts[2] * mixed(f"blocks.{i}.attn", normal(tokens) * (1 + parts[1]) + parts[0])
        inner = gelu(dense(f"blocks.{i}.mlp.fc1", normal(tokens) * (1 + parts[4]) + parts[3]))
        tokens = tokens + parts[5] * dense(f"blocks.{i}.mlp.fc2", inner)
    shift, scale = np.split(dense("final_layer.adaLN_modulation.1", told)[:, None], 2, axis=2)
    out = dense("final_layer.linear", normal(tokens) * (1 + scale) + shift)
    out = out.reshape(batch, side, side, patch, patch, -1)[..., :channels]
    return out.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def normal(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
