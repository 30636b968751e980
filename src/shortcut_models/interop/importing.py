"""Other people's weights as a network of ours with its parameters: `read_weights`, whatever the format.

The network then answers in our convention (noise at t=0, data at t=1, velocity towards the data) exactly
what the source answers. Nothing that the file leaves open is guessed: heads, sizes and formats that
it does not tell are asked for.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shortcut_models.errors import InputError, check_whole
from shortcut_models.interop import official
from shortcut_models.interop.diffusers_folder import read_diffusers
from shortcut_models.interop.epsilon_dit import EpsilonDiT
from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import shown
from shortcut_models.interop.torch_file import TorchFile, read_torch
from shortcut_models.interop.torch_names import (
    TorchSizes,
    as_float32,
    reflected,
    sizes_of,
    to_ours,
)
from shortcut_models.networks.base import Network, Params
from shortcut_models.networks.dit import DiT

FORMATS = ("auto", "official", "sit", "dit", "diffusers", "meanflow")
STEPPED = ("shortcut", "livereflow")
"""Training types of the official code whose network is told the step size; the others embed index 0 always."""
TRAIN_TYPES = (*STEPPED, "naive", "progressive", "consistency", "consistency-distillation")
HEADS = {(384, 12): 6, (768, 12): 12, (1024, 24): 16, (1152, 28): 16}
"""Heads of DiT's published sizes S, B, L and XL, by width and depth (arXiv 2212.09748, table 1)."""
PUBLISHED_SIZE = 32
"""Side of the latents of 256-pixel images, on which the official code's published sizes were trained."""


class Imported(NamedTuple):
    """A network of ours with its parameters, and what is known of where they come from."""

    network: Network
    params: Params
    """float32, in the layout of `network.init`."""
    about: dict[str, Any]
    """Plain facts: format, weights, and what was assumed or only the file's arguments tell."""
    kind: str
    """"shortcut", "flow" (knows only the velocity), "few-step" (jumps already), or "wrapper" (samples only)."""
    has_null_label: bool
    """Whether label `num_classes` was trained: without it, there is no guidance."""
    step: int | None
    """Steps of training, where the file tells."""
    moments: dict[str, Any] | None
    """Adam's state, if asked for: "count", and "mu" and "nu" in the layout of `params`."""


def read_weights(
    file: str | Path,
    *,
    format: str = "auto",  # noqa: A002 - the flag's name
    num_heads: int | None = None,
    image_size: int | None = None,
    weights: str = "ema",
    train_type: str = "shortcut",
    optimizer: bool = False,
) -> Imported:
    """Read a checkpoint of the official code, of SiT, DiT or MeanFlow (`.pt`), or a diffusers folder.

    Args:
        file: The file or folder.
        format: One of FORMATS; "auto" tells them apart, but not a bare state dict of SiT from one of DiT.
        num_heads: Attention heads, for sizes other than the published ones; tensors do not tell.
        image_size: Side of the network's input, where the tensors do not tell it.
        weights: "ema", "raw", or "any": averaged, or the last ones of a file without averages, which `about` says.
        train_type: What the official code's `--model.train_type` was.
        optimizer: Whether to read Adam's state, of an official checkpoint.

    Raises:
        InputError: The file is damaged, hostile, of another kind, or leaves something open.
    """
    for word, value, names in (
        ("--format", format, FORMATS),
        ("--weights", weights, ("ema", "raw", "any")),
        ("--train-type", train_type.replace("_", "-"), TRAIN_TYPES),
    ):
        if value not in names:
            raise InputError(f"{word} {shown(value)} is unknown: choose one of {', '.join(names)}.")
    for word, number in (("num_heads", num_heads), ("image_size", image_size)):
        if number is not None:
            check_whole(word, number, 1, 4096)
    num_heads, image_size = (number if number is None else int(number) for number in (num_heads, image_size))
    path = Path(file)
    found = format_of(path) if format == "auto" else format
    _check_place(path, found)
    if found != "official":
        if optimizer:
            raise InputError("the optimiser's state is only read from checkpoints of the official code: leave it out.")
        if train_type != "shortcut":
            raise InputError(
                f"--train-type {train_type} is for checkpoints of the official code, which {_shown(path)} is not: "
                "leave it out."
            )
    if found == "official":
        imported = _official(path, num_heads, image_size, weights, train_type.replace("_", "-"), optimizer)
    elif found == "diffusers":
        imported = _diffusers(path, num_heads, weights)
    else:
        imported = _torch(path, found, num_heads, weights)
    given = image_size or imported.network.shape[0]
    if given != imported.network.shape[0]:
        raise InputError(f"image_size is {given}, but the weights are for {imported.network.shape[0]}.")
    return imported


def format_of(path: Path) -> str:
    """Either "official", "diffusers", or "torch" for a file of PyTorch's, which must be opened to be told further."""
    if path.is_dir():
        if official.holds_checkpoint(path):
            return "official"
        if (path / "config.json").is_file() or (path / "transformer").is_dir():
            return "diffusers"
        raise InputError(f"{_shown(path)} is a folder without weights that are known: it has no config.json.")
    if path.suffix == ".safetensors":
        raise InputError(f"{_shown(path)} does not say what it belongs to: give the folder with its config.json.")
    start = bytes(bytes_of(path)[:4])
    return "torch" if start == b"PK\x03\x04" or start == b"\x80\x02\x8a\x0a" else "official"


def _check_place(path: Path, form: str) -> None:
    """Raise InputError for a file where this format is a folder, or the other way round."""
    if form == "diffusers" and path.is_file():
        raise InputError(f"--format diffusers is for folders with a config.json, but {_shown(path)} is a file.")
    if form not in ("diffusers", "official") and path.is_dir():
        raise InputError(f"--format {form} is for files of PyTorch's, but {_shown(path)} is a folder: leave it out.")


def _shown(path: Path) -> str:
    return shown(str(path), 200)


def _official(
    path: Path, num_heads: int | None, image_size: int | None, weights: str, train_type: str, optimizer: bool
) -> Imported:
    read = official.read_checkpoint(path, weights, optimizer)
    file, about = (
        official.find_checkpoint(path),
        {"format": "official", "weights": read.weights, "train_type": train_type},
    )
    with reading(file):
        sizes = official.sizes_of(read.params)
        heads = _heads(num_heads, sizes.hidden_size, sizes.depth)
        if image_size is None:
            if (sizes.hidden_size, sizes.depth) not in HEADS or sizes.channels != 4:
                raise InputError(
                    "its tensors do not tell the side of the network's input: give image_size (`shortcut import "
                    "--image-size`)"
                )
            image_size, about["assumed"] = PUBLISHED_SIZE, f"image_size {PUBLISHED_SIZE}"
        if image_size % sizes.patch_size:
            raise InputError(f"image_size {image_size} is no multiple of the side of its patches, {sizes.patch_size}")
        network = DiT.original(
            image_size=image_size,
            channels=sizes.channels,
            num_classes=sizes.num_classes,
            patch_size=sizes.patch_size,
            hidden_size=sizes.hidden_size,
            depth=sizes.depth,
            num_heads=heads,
            mlp_ratio=_ratio(sizes.mlp_width, sizes.hidden_size),
        )
        params = as_float32(official.to_ours(read.params, sizes.depth))
        moments = read.moments and _moments(read.moments, sizes)
        if train_type not in STEPPED:
            params, moments = _without_step(params), moments and _without_moments(moments)
    kind = "shortcut" if train_type in STEPPED else "flow" if train_type == "naive" else "few-step"
    return Imported(network, params, about, kind, True, read.step, moments)


def _moments(read: dict[str, Any], sizes: official.Sizes) -> dict[str, Any]:
    """Adam's state in our layout, without the table of log-variances."""
    found = {"count": read["count"]}
    for name in ("mu", "nu"):
        tree = {part: leaf for part, leaf in read[name].items() if part != "Embed_0"}
        official.compare(sizes.layout(), {path: leaf.shape for path, leaf in official.leaves(tree)})
        found[name] = as_float32(official.to_ours(tree, sizes.depth))
    return found


def _without_step(params: Params) -> Params:
    """The network that embeds index 0 whatever d: that embedding as a bias, beside which nothing is told yet."""
    first, last = params["step"]["in"], params["step"]["out"]
    # The sinusoid of 0: all cosines 1, all sines 0.
    hidden = first["kernel"].astype(np.float64)[: len(first["kernel"]) // 2].sum(axis=0) + first["bias"]
    bias = (hidden / (1 + np.exp(-hidden))) @ last["kernel"].astype(np.float64) + last["bias"]
    out = {"kernel": np.zeros_like(last["kernel"]), "bias": bias.astype(np.float32)}
    return {**params, "step": {"in": first, "out": out}}


def _without_moments(moments: dict[str, Any]) -> dict[str, Any]:
    """Moments of `_without_step`'s parameters: of its bias they are the source's, its new matrix has none."""

    def step(tree: Params) -> Params:
        own = tree["step"]
        out = {"kernel": np.zeros_like(own["out"]["kernel"]), "bias": own["out"]["bias"]}
        return {**tree, "step": {"in": {name: np.zeros_like(a) for name, a in own["in"].items()}, "out": out}}

    return {**moments, "mu": step(moments["mu"]), "nu": step(moments["nu"])}


def _torch(path: Path, asked: str, num_heads: int | None, weights: str) -> Imported:
    file = read_torch(path)
    if file.is_bare:
        _check_one_set(path, weights)
    weights = file.which(weights)
    tensors = file.state_dict(weights)
    with reading(path):
        found = _kind_of(file, tensors, asked)
        sizes = sizes_of(tensors)
        classes, has_null = _classes(file.args, sizes)
        params = to_ours(tensors, sizes)
        if not has_null:
            params["label"] = {"table": _with_mean(params["label"]["table"])}
        heads = _heads(num_heads, sizes.hidden_size, sizes.depth)
        about: dict[str, Any] = {"format": found, "weights": "as saved" if file.is_bare else weights}
        if "num_classes" not in file.args:
            about["assumed"] = f"num_classes {classes}: the last of {sizes.rows} labels is the null label"
        about |= {name: file.args[name] for name in ("cfg_scale", "cfg_omega", "cfg_kappa") if name in file.args}
        if found == "dit":
            return Imported(_wrapper(sizes, classes, heads), params, about, "wrapper", has_null, file.step, None)
        network = _network(sizes, classes, heads)
        if found == "meanflow":
            about["latent_scale"] = 0.18125  # What its code multiplies latents by; everyone else's factor is 0.18215.
            return Imported(network, reflected(params), about, "few-step", has_null, file.step, None)
        return Imported(network, params, about, "flow", has_null, file.step, None)


def _check_one_set(path: Path, weights: str) -> None:
    if weights == "raw":
        raise InputError(f"{_shown(path)} has one set of weights, and does not say which: leave --weights raw out.")


def _kind_of(file: TorchFile, tensors: dict[str, Any], asked: str) -> str:
    """What the tensors and arguments say, "sit", "dit" or "meanflow", which must be what was asked for, if it was."""
    args = file.args
    told = "dit" if args else None
    if any(name.startswith("r_embedder.") for name in tensors):
        told = "meanflow"
    elif "path_type" in args or "prediction" in args:
        told = "sit"
    found = told or asked
    if found == "torch":
        raise InputError(
            "it is a state dict without arguments, which may be SiT's or DiT's, whose numbers mean different things: "
            "say which with --format sit or --format dit (to start a training: --start-as sit)"
        )
    if asked not in ("torch", found):
        raise InputError(f"--format {asked} is not what it is: its tensors and arguments are those of {found}")
    if found == "meanflow" and told is None:
        raise InputError("it has no r_embedder, so it is no MeanFlow: choose another --format")
    wanted = {"path_type": "linear", "prediction": "velocity"}
    for name, value in wanted.items() if found != "dit" else ():
        given = args.get(name, value)
        if str(given).lower() != value:
            raise InputError(
                f"it was trained with {name} {shown(str(given))}, which is no velocity on the straight path "
                f"({value} is): only such models are taken"
            )
    return found


def _classes(args: dict[str, Any], sizes: TorchSizes) -> tuple[int, bool]:
    """Number of classes, and whether the table has a row for the null label beside them."""
    classes = args.get("num_classes", sizes.rows - 1)
    if type(classes) is not int or classes < 1 or sizes.rows - classes not in (0, 1):
        raise InputError(f"its label table has {sizes.rows} rows, which does not fit {classes} classes")
    return classes, sizes.rows == classes + 1


def _with_mean(table: np.ndarray) -> np.ndarray:
    """A row more for the null label, which was never trained: the mean of the classes."""
    return np.concatenate([table, table.mean(axis=0, keepdims=True, dtype=np.float32)])


def _diffusers(path: Path, num_heads: int | None, weights: str) -> Imported:
    _check_one_set(path, weights)
    config, tensors = read_diffusers(path)
    with reading(path):
        sizes = sizes_of(tensors)
        heads, classes = config["num_attention_heads"], config.get("num_embeds_ada_norm", sizes.rows - 1)
        told = (heads * config["attention_head_dim"], config["in_channels"], config["patch_size"])
        if told != (sizes.hidden_size, sizes.channels, sizes.patch_size) or sizes.rows != classes + 1:
            raise InputError("the sizes in its config.json are not those of its tensors")
        if num_heads not in (None, heads):
            raise InputError(f"num_heads is {num_heads}, but its config.json says {heads}")
        about = {"format": "diffusers", "weights": "as saved"}
        return Imported(_wrapper(sizes, classes, heads), to_ours(tensors, sizes), about, "wrapper", True, None, None)


def _heads(given: int | None, width: int, depth: int) -> int:
    heads = given or HEADS.get((width, depth))
    if heads is None:
        raise InputError(
            f"its tensors do not tell the attention heads (width {width}, depth {depth}): give num_heads (`shortcut "
            "import --num-heads`; to start a training, --model.num-heads)"
        )
    if width % heads:
        raise InputError(f"num_heads {heads} does not divide the network's width {width}")
    return heads


def _ratio(hidden: int, width: int) -> float:
    """The mlp_ratio that gives this very width back in spite of rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else float(np.nextafter(ratio, np.inf))


def _fields(sizes: TorchSizes, classes: int, heads: int) -> dict[str, Any]:
    names = ("image_size", "channels", "patch_size", "hidden_size", "depth", "position_dtype")
    own = {name: getattr(sizes, name) for name in names}
    return {**own, "num_classes": classes, "num_heads": heads, "mlp_ratio": _ratio(sizes.mlp_width, sizes.hidden_size)}


def _network(sizes: TorchSizes, classes: int, heads: int) -> DiT:
    fixed: dict[str, Any] = {"step_conditioning": "smooth", "time_scale": 1.0, "qk_norm": False}
    return DiT(**_fields(sizes, classes, heads), **fixed, attention_scale="root")


def _wrapper(sizes: TorchSizes, classes: int, heads: int) -> EpsilonDiT:
    return EpsilonDiT(**_fields(sizes, classes, heads))
