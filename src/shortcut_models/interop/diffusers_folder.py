"""A folder of diffusers' DiTTransformer2DModel, renamed to the tensors of the official DiT code.

diffusers stores the embeddings of time and label once per block and uses block 0's for the head; it
also computes with other frequencies (exp(-ln(10000) i/127)) and another epsilon (1e-5) than the
weights were trained with. The renamed tensors are for the network that they were trained in.
"""

from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import Damaged, shown
from shortcut_models.interop.safetensors_file import parse_json, read_safetensors
from shortcut_models.interop.torch_names import Tensors, position_table

STEM = "diffusion_pytorch_model"
WEIGHTS = f"{STEM}.safetensors"
CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
LARGEST = 1 << 16
"""Of any size in a config."""
SIZES = ("num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size", "patch_size")
EXPECTED = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True}
SHARED = {
    **{f"timestep_embedder.linear_{i + 1}": f"t_embedder.mlp.{2 * i}" for i in (0, 1)},
    "class_embedder.embedding_table": "y_embedder.embedding_table",
}
PARTS = {"norm1.linear": "adaLN_modulation.1", "attn1.to_out.0": "attn.proj"}
PARTS |= {"ff.net.0.proj": "mlp.fc1", "ff.net.2": "mlp.fc2"}
OUTER = {"pos_embed.proj": "x_embedder.proj", "proj_out_1": "final_layer.adaLN_modulation.1"}
OUTER["proj_out_2"] = "final_layer.linear"


def holds_diffusers(folder: Path) -> bool:
    """Whether a folder looks like a model of diffusers', or a pipeline of several."""
    return (folder / "transformer").is_dir() or any(folder.glob(f"{STEM}*"))


def read_diffusers(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The config, and the tensors in the official DiT code's names; `folder` may be a whole pipeline's.

    Raises InputError for another model, for weights that are no safetensors, and for a network whose
    blocks embed time or label each in its own way, which no official DiT does.
    """
    if (folder / "transformer").is_dir():
        folder = folder / "transformer"
    config = read_config(folder / "config.json")
    tensors = _read_tensors(folder)
    with reading(folder):
        return config, renamed(tensors, config)


def read_config(file: Path) -> dict[str, Any]:
    """A config.json of DiTTransformer2DModel whose sizes are whole numbers."""
    data = bytes_of(file)
    with reading(file):
        if len(data) > 1 << 20:
            raise Damaged("it is too large for a config")
        config = parse_json(bytes(data))
        if config.get("_class_name") not in CLASSES:
            raise Damaged(f"it is a config of {shown(config.get('_class_name'))}, not of {CLASSES[0]}")
        for name in SIZES:
            if type(config.get(name)) is not int or not 1 <= config[name] <= LARGEST:
                raise Damaged(f"its {name} is no whole number from 1 to {LARGEST}")
        for name, value in EXPECTED.items():
            if config.get(name, value) != value:
                raise Damaged(f"its {name} is not {value!r}, as DiT's is")
    return config


def _read_tensors(folder: Path) -> Tensors:
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).exists() or not index.is_file():
        if not (folder / WEIGHTS).exists() and (others := sorted(place.name for place in folder.glob(f"{STEM}*"))):
            raise InputError(
                f"{shown(str(folder), 200)} has no {WEIGHTS}, only {shown(others[0])}: save it again with "
                "safe_serialization=True and without a variant."
            )
        return read_safetensors(folder / WEIGHTS)
    data = bytes_of(index)
    with reading(index):
        places = parse_json(bytes(data)).get("weight_map")
        if type(places) is not dict or not all(type(place) is str for place in places.values()):
            raise Damaged("it has no weight_map")
        shards = sorted(set(places.values()))
        if len(shards) > 1000 or any(Path(s).name != s or not s.endswith(".safetensors") for s in shards):
            raise Damaged("its weight_map names something other than up to 1000 safetensors files beside it")
    tensors: Tensors = {}
    for shard in shards:
        part = read_safetensors(folder / shard)
        with reading(index):
            if any(places.get(name) != shard for name in part):
                raise Damaged(f"{shown(shard)} holds tensors that the weight_map places elsewhere")
        tensors |= part
    with reading(index):
        if set(tensors) != set(places):
            raise Damaged("its weight_map names tensors that its files do not have")
    return tensors


def renamed(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """Tensors of diffusers in the official code's names, with the table of positions that diffusers does not save."""
    left = dict(tensors)

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise Damaged(f"it lacks {name}")
        return left.pop(name)

    found: Tensors = {}
    for kind in ("weight", "bias"):
        for theirs, ours in OUTER.items():
            found[f"{ours}.{kind}"] = take(f"{theirs}.{kind}")
    for i in range(config["num_layers"]):
        block = f"transformer_blocks.{i}"
        for kind in ("weight", "bias"):
            for theirs, ours in PARTS.items():
                found[f"blocks.{i}.{ours}.{kind}"] = take(f"{block}.{theirs}.{kind}")
            parts = [take(f"{block}.attn1.to_{part}.{kind}") for part in "qkv"]
            if len({part.shape[1:] for part in parts}) != 1:
                raise Damaged(f"the queries, keys and values of {block} do not fit together")
            found[f"blocks.{i}.attn.qkv.{kind}"] = np.concatenate(parts)
            for theirs, ours in SHARED.items():
                if kind == "bias" and "table" in theirs:
                    continue
                own = take(f"{block}.norm1.emb.{theirs}.{kind}")
                if not np.array_equal(found.setdefault(f"{ours}.{kind}", own), own):
                    raise Damaged(
                        f"block {i} embeds time or label otherwise than block 0 ({theirs}), as no official DiT does"
                    )
    if left:
        raise Damaged(f"it has {len(left)} tensors besides, {shown(next(iter(left)))} among them")
    side, width = config["sample_size"] // config["patch_size"], found["x_embedder.proj.bias"].size
    if side * side * width > 1 << 28:
        raise Damaged("its sample_size is too large for its patch_size")
    found["pos_embed"] = position_table(side, width)[None].astype(np.float32)
    return found
