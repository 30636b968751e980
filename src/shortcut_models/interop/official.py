"""Checkpoints of the official code (kvfrans/shortcut-models), read without running anything in them.

They are pickles, `{"train_state": {"params", "params_ema", "opt_state", "step"}, "_timestamp"}`, with
flax's names for parameters; the original writes them as a file NAME or, by accident, as a folder NAME/
that holds NAME.tmp. Only the arrays that are asked for are read: two thirds of a file are the
optimiser's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models.errors import InputError
from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import Damaged, Made, read_pickle, shown, tree_of
from shortcut_models.interop.pickled_arrays import ARRAYS, Stored, check_total, stored

Params = dict[str, Any]


@dataclass(frozen=True)
class Official:
    """What a checkpoint holds; parameters are nested dicts in flax's names."""

    params: Params
    """The weights that were asked for."""
    weights: str
    """Which they are: "ema" or "raw"."""
    step: int
    moments: dict[str, Any] | None
    """Adam's state if it was asked for: "count", and "mu" and "nu" in the layout of `params`."""


def find_checkpoint(path: Path) -> Path:
    """The pickle of a checkpoint NAME: the file itself, or NAME.tmp in the folder NAME/, renamed or not."""
    if not path.is_dir():
        return path
    content = list(path.iterdir())
    if len(content) == 1 and content[0].suffix == ".tmp":
        return content[0]
    return path / f"{path.resolve().name}.tmp"


def holds_checkpoint(path: Path) -> bool:
    """Whether it is a folder with the pickle of a checkpoint inside."""
    return path.is_dir() and find_checkpoint(path).is_file()


def read_checkpoint(path: Path, weights: str = "ema", optimizer: bool = False) -> Official:
    """Read one set of weights of a checkpoint, the step, and Adam's moments on request.

    `weights` is "ema", "raw", or "any": the averages, or the last weights of a file without.

    Raises InputError if there is none, if it is damaged, or if it holds anything but numbers.
    """
    file = find_checkpoint(path)
    data = bytes_of(file)
    with reading(file):
        if bytes(data[:1]) != b"\x80":
            raise Damaged("it is no pickle of protocol 2 or later, as a checkpoint of the official code is")
        content, end = read_pickle(data, ARRAYS)
        if end != len(data):
            raise Damaged(f"it goes on for {len(data) - end:,} bytes after its end")
        state = content.get("train_state") if type(content) is dict else None
        if type(state) is not dict or "params" not in state or "step" not in state:
            raise Damaged("it is a pickle, but no checkpoint of the official code")
        if weights == "any":
            weights = "raw" if state.get("params_ema") is None else "ema"
        name = {"ema": "params_ema", "raw": "params"}[weights]
        if state.get(name) is None:
            raise Damaged(
                "it has no averaged weights: ask for the raw ones" if weights == "ema" else "it has no weights"
            )
        # Both sets are checked whichever is read: a file that lies in one is not to be trusted in the other.
        trees = {part: _checked(state[part], len(data)) for part in ("params", "params_ema") if state.get(part)}
        if "PatchEmbed_0" not in trees[name]:
            raise Damaged("its parameters are not those of the official DiT")
        moments = _moments(state.get("opt_state"), len(data)) if optimizer else None
        return Official(_read(trees[name]), weights, _step(state["step"]), moments)


def _checked(kept: Any, there: int) -> Params:
    """Nested dicts of `Stored`."""
    tree = tree_of(kept, stored)
    check_total(sum(len(leaf.raw) for _, leaf in leaves(tree)), there)
    return tree


def _read(tree: Params) -> Params:
    return {name: leaf.read() if isinstance(leaf, Stored) else _read(leaf) for name, leaf in tree.items()}


def leaves(tree: Params, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of nested dicts that is no dict, with its names joined by slashes."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value


def _step(kept: Any) -> int:
    value = kept
    if isinstance(kept, Made):
        array = stored(kept)
        value = array.read().item() if array.shape == () else None
    if type(value) is not int or not 0 <= value < 2**63:
        raise Damaged("its step is no whole number")
    return value


def _moments(opt_state: Any, there: int) -> dict[str, Any]:
    """Adam's state, the only one in optax's nested tuples of states."""
    found: list[Made] = []
    todo: list[Any] = [opt_state]
    seen: set[int] = set()
    while todo:
        kept = todo.pop()
        if id(kept) in seen:
            continue
        seen.add(id(kept))
        if isinstance(kept, Made) and kept.by == "optax._src.transform.ScaleByAdamState":
            found.append(kept)
        elif type(kept) in (tuple, list):
            todo += kept
    if len(found) != 1 or len(found[0].args) != 3:
        raise Damaged("it has no state of Adam, which the original trains with: leave the optimiser's state out")
    count, mu, nu = found[0].args
    return {"count": _step(count), "mu": _read(_checked(mu, there)), "nu": _read(_checked(nu, there))}


@dataclass(frozen=True)
class Sizes:
    """What the shapes of the official parameters tell of the network."""

    patch_size: int
    channels: int
    hidden_size: int
    num_classes: int
    depth: int
    mlp_width: int

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter that such a network has, by its path in flax's names."""
        p, c, h, m = self.patch_size, self.channels, self.hidden_size, self.mlp_width
        shapes: dict[str, tuple[int, ...]] = {
            "PatchEmbed_0/Conv_0/kernel": (p, p, c, h),
            "PatchEmbed_0/Conv_0/bias": (h,),
            "LabelEmbedder_0/Embed_0/embedding": (self.num_classes + 1, h),
        }
        denses = {"FinalLayer_0/Dense_0": (h, 2 * h), "FinalLayer_0/Dense_1": (h, p * p * c)}
        for i in (0, 1):
            denses |= {f"TimestepEmbedder_{i}/Dense_0": (256, h), f"TimestepEmbedder_{i}/Dense_1": (h, h)}
        for i in range(self.depth):
            denses[f"DiTBlock_{i}/Dense_0"] = (h, 6 * h)
            denses |= {f"DiTBlock_{i}/Dense_{j}": (h, h) for j in (1, 2, 3, 4)}
            denses |= {f"DiTBlock_{i}/MlpBlock_0/Dense_0": (h, m), f"DiTBlock_{i}/MlpBlock_0/Dense_1": (m, h)}
        for name, shape in denses.items():
            shapes |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
        return shapes


def sizes_of(params: Params) -> Sizes:
    """The sizes, from the shapes; raises InputError naming every tensor that does not fit them."""
    found = {name: leaf.shape for name, leaf in leaves(params)}

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if len(found.get(name, ())) != axes:
            raise InputError(f"{name} is {_told(found.get(name))}, but should have {axes} axes")
        return found[name]

    patch, _, channels, width = shape("PatchEmbed_0/Conv_0/kernel", 4)
    numbers = [name.split("/")[0].removeprefix("DiTBlock_") for name in found if name.startswith("DiTBlock_")]
    depth = 1 + max((int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 5), default=0)
    rows, mlp = shape("LabelEmbedder_0/Embed_0/embedding", 2)[0], shape("DiTBlock_0/MlpBlock_0/Dense_0/kernel", 2)[1]
    if min(patch, channels, width, rows - 1, mlp) < 1 or depth > len(found):
        raise InputError("its parameters have sizes that no network has")
    sizes = Sizes(patch, channels, width, rows - 1, depth, mlp)
    # A table of log-variances that the original's network never reads.
    compare(sizes.layout(), {name: s for name, s in found.items() if name != "Embed_0/embedding"})
    return sizes


def compare(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Raise InputError, naming the tensors, unless names and shapes are those expected."""
    parts = [
        ("lacks", [name for name in expected if name not in found]),
        ("has besides", [name for name in found if name not in expected]),
        (
            "has other shapes than it should:",
            [
                f"{name} {found[name]} instead of {shape}"
                for name, shape in expected.items()
                if name in found and found[name] != shape
            ],
        ),
    ]
    told = [f"{word} {_listed(names)}" for word, names in parts if names]
    if told:
        raise InputError(f"it {'; '.join(told)}")


def _listed(names: list[str], most: int = 6) -> str:
    plain = [name if name.isprintable() and len(name) <= 120 else shown(name, 100) for name in names[:most]]
    return ", ".join(plain) + (f" and {len(names) - most} more" if len(names) > most else "")


def _told(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else f"of shape {shape}"


def to_ours(params: Params, depth: int) -> Params:
    """The official parameters in the layout of `DiT.init`; the unused table of log-variances is left out.

    Patch kernel (p, p, C, H) -> (p*p*C, H); key, query and value, (H, H) each, -> [query|key|value]
    (H, 3H); all of DiTBlock_i stacked along a leading axis (depth, ...). Adam's moments go the same way.
    """
    patch, final = params["PatchEmbed_0"]["Conv_0"], params["FinalLayer_0"]
    time, step = ({"in": p["Dense_0"], "out": p["Dense_1"]} for p in (params[f"TimestepEmbedder_{i}"] for i in (0, 1)))
    return {
        "patch": {"kernel": patch["kernel"].reshape(-1, patch["kernel"].shape[-1]), "bias": patch["bias"]},
        "time": time,
        "step": step,
        "label": {"table": params["LabelEmbedder_0"]["Embed_0"]["embedding"]},
        "blocks": stack([_block(params[f"DiTBlock_{i}"]) for i in range(depth)]),
        "final": {"modulation": final["Dense_0"], "linear": final["Dense_1"]},
    }


def _block(p: Params) -> Params:
    key, query, value, mlp = p["Dense_1"], p["Dense_2"], p["Dense_3"], p["MlpBlock_0"]
    qkv = {name: np.concatenate([part[name] for part in (query, key, value)], axis=-1) for name in ("kernel", "bias")}
    own = {"modulation": p["Dense_0"], "qkv": qkv, "out": p["Dense_4"]}
    return {**own, "mlp_in": mlp["Dense_0"], "mlp_out": mlp["Dense_1"]}


def stack(blocks: list[Params]) -> Params:
    """Blocks of the same layout as one, every array with a leading axis of their number."""
    return {
        name: stack([block[name] for block in blocks])
        if isinstance(part, dict)
        else np.stack([b[name] for b in blocks])
        for name, part in blocks[0].items()
    }
