"""Checkpoints of the official code (kvfrans/shortcut-models), read without running anything in them.

They are pickles, `{"train_state": {"params", "params_ema", "opt_state", "step"}, "_timestamp"}`, and
a pickle may name any function to call. Here only the names that such a checkpoint needs are known,
each an inert stand-in that keeps what it is given; arrays are then built from the bytes kept.
"""

import pickle
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.layers import Params

KNOWN = {
    *[("numpy", name) for name in ("dtype", "ndarray")],
    *[(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")],
    *[(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")],
    ("jax._src.array", "_reconstruct_array"),
    *[("optax._src.base", "EmptyState"), ("optax._src.transform", "EmptyState")],
    *[("optax._src.transform", f"ScaleBy{name}State") for name in ("Adam", "Schedule")],
}
"""Every module and name that a checkpoint may use, exactly."""
DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class Official(NamedTuple):
    """What a checkpoint holds apart from the optimiser; parameters are nested dicts in flax's names."""

    params: Params
    params_ema: Params
    step: int


class _Inert:
    """Stands in for whatever the pickle names: keeps its arguments and state, and runs nothing."""

    def __init__(self, *args: Any) -> None:
        self.args, self.state = args, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise InputError(f"it asks for {module}.{name}, which no checkpoint of a network needs, so it is refused")
        return type(name, (_Inert,), {})


def read_checkpoint(path: Path) -> Official:
    """Read a checkpoint NAME, or the folder NAME/ holding NAME.tmp that the original writes by accident.

    Raises InputError if there is none, if it is damaged, or if it holds anything but numbers.
    """
    file = path / f"{path.name}.tmp" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} is not there: give a checkpoint file of the official code, or its folder.")
    try:
        with file.open("rb") as stream:
            state = _Unpickler(stream).load()["train_state"]
        if "PatchEmbed_0" not in state["params"]:
            raise InputError("its parameters are not those of the official DiT")
        return Official(_values(state["params"]), _values(state["params_ema"]), int(_values(state["step"])))
    except InputError as error:
        raise InputError(f"{file} cannot be read: {error}.") from None
    except Exception as error:  # A damaged pickle can raise anything.
        name = type(error).__name__
        raise InputError(f"{file} is damaged, or no checkpoint of the official code ({name}: {error}).") from None


def _values(kept: Any) -> Any:
    """Nested dicts of NumPy arrays, and plain numbers, from what the pickle left."""
    if isinstance(kept, dict):
        return {str(name): _values(value) for name, value in kept.items()}
    if isinstance(kept, int | float):
        return kept
    match type(kept).__name__ if isinstance(kept, _Inert) else None:
        case "_reconstruct":
            return _array(*kept.state)
        case "_reconstruct_array":
            return _array(*kept.args[2])
        case "_frombuffer":
            raw, dtype, shape, order = kept.args
            return _array(1, shape, dtype, order == "F", raw)
        case "scalar":
            return _array(1, (), kept.args[0], False, kept.args[1])
    raise InputError(f"it holds a {type(kept).__name__} where an array should be, so it is refused")


def _array(_version: int, shape: tuple[int, ...], dtype: Any, is_fortran: bool, raw: Any) -> np.ndarray:
    """The array that NumPy's own pickles describe; numbers only."""
    code = dtype.args[0]
    if code not in DTYPES or not isinstance(raw, bytes | bytearray):
        raise InputError(f"it holds an array of dtype {code!r} instead of numbers, so it is refused")
    numbers = np.dtype(code).newbyteorder(dtype.state[1])
    if len(raw) != prod(shape) * numbers.itemsize:
        raise InputError(f"an array of shape {shape} has {len(raw)} bytes instead of {prod(shape) * numbers.itemsize}")
    array = np.frombuffer(raw, numbers).reshape(shape, order="F" if is_fortran else "C")
    return array.astype(numbers.newbyteorder("="))


def infer_network(params: Params, num_heads: int, image_size: int = 32) -> DiT:
    """The network of these parameters; its heads and its image size leave no trace in their shapes."""
    patch, _, channels, width = params["PatchEmbed_0"]["Conv_0"]["kernel"].shape
    return DiT.original(
        image_size=image_size,
        channels=channels,
        num_classes=params["LabelEmbedder_0"]["Embed_0"]["embedding"].shape[0] - 1,
        patch_size=patch,
        hidden_size=width,
        depth=sum(name.startswith("DiTBlock_") for name in params),
        num_heads=num_heads,
        mlp_ratio=params["DiTBlock_0"]["MlpBlock_0"]["Dense_0"]["kernel"].shape[1] / width,
    )


def to_ours(params: Params) -> Params:
    """The official parameters in the layout of `DiT.init`; the unused table of log-variances is left out.

    Patch kernel (p, p, C, H) -> (p*p*C, H); key, query and value, (H, H) each, -> [query|key|value]
    (H, 3H); all of DiTBlock_i stacked along a leading axis (depth, ...).
    """
    patch, final = params["PatchEmbed_0"]["Conv_0"], params["FinalLayer_0"]
    time, step = ({"in": p["Dense_0"], "out": p["Dense_1"]} for p in (params[f"TimestepEmbedder_{i}"] for i in (0, 1)))
    blocks = [_block(params[f"DiTBlock_{i}"]) for i in range(sum(name.startswith("DiTBlock_") for name in params))]
    return {
        "patch": {"kernel": patch["kernel"].reshape(-1, patch["kernel"].shape[-1]), "bias": patch["bias"]},
        "time": time,
        "step": step,
        "label": {"table": params["LabelEmbedder_0"]["Embed_0"]["embedding"]},
        "blocks": jax.tree.map(lambda *parts: np.stack(parts), *blocks),
        "final": {"modulation": final["Dense_0"], "linear": final["Dense_1"]},
    }


def _block(p: Params) -> Params:
    key, query, value, mlp = p["Dense_1"], p["Dense_2"], p["Dense_3"], p["MlpBlock_0"]
    qkv = {name: np.concatenate([part[name] for part in (query, key, value)], axis=-1) for name in ("kernel", "bias")}
    own = {"modulation": p["Dense_0"], "qkv": qkv, "out": p["Dense_4"]}
    return {**own, "mlp_in": mlp["Dense_0"], "mlp_out": mlp["Dense_1"]}
