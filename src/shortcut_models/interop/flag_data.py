"""The data that the official code's `--dataset_name` and `--model.use_stable_vae` stand for; see `flags`."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcut_models import catalogue
from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.data.base import Data

SIZE = 256
"""Side to which images of any size are resized, as the official code's data are."""
FEW = 8
"""Images that `--debug_overfit` trains on."""
MIRRORED = ("imagenet256", "celebahq256")
"""Data whose images the official code mirrors half of the time, if their name holds this; LSUN is none of them."""


def find_data(flags: dict[str, Any]) -> "Data":
    """The data set, with the VAE in front unless its items are latents or pixels are asked for.

    Raises InputError for data that the official code's network does not take.
    """
    from shortcut_models.data.images import FOUND

    name, data = flags["dataset_name"], _named(flags["dataset_name"])
    from_files = hasattr(data, "vae")
    if from_files and data.size is None:
        data = replace(data, size=SIZE)
    if not from_files and (len(data.shape) != 3 or data.shape[0] != data.shape[1]):
        raise InputError(
            f"--dataset_name {name}: its items are {' x '.join(map(str, data.shape))} numbers, but the official code's "
            "network takes square images: name others."
        )
    known = {field.name for field in fields(data)}
    if "flip" in known and any(word in name for word in MIRRORED) and _has_mirrored(data):
        data = replace(data, flip=True)
    if flags["debug_overfit"]:
        if "first" not in known:
            raise InputError(f"--debug_overfit 1 takes the first images of files, which --dataset_name {name} has not.")
        # The first batch is drawn once, mirrored or not; here nothing is.
        data = replace(data, first=min(FEW, flags["batch_size"]), flip=False)
    if from_files:
        return replace(data, vae=FOUND) if flags["model.use_stable_vae"] else data
    pixels = data.codec.identity == "pixels"
    if pixels and flags["model.use_stable_vae"]:
        raise InputError(
            f"--model.use_stable_vae 1 encodes images as they are read, which --dataset_name {name} does not offer: "
            "prepare them with `shortcut prepare SOURCE OUT --vae FILE`, or give --model.use_stable_vae 0."
        )
    if not pixels and not flags["model.use_stable_vae"]:
        raise InputError(
            f"--model.use_stable_vae 0 trains on pixels, but --dataset_name {name} holds latents: leave it out, or "
            "name the images."
        )
    return data


def _named(name: str) -> Any:
    from shortcut_models.data import opening

    # The official code tells data by what their name holds; a path, or KIND:PATH, is taken at its word.
    known = name in catalogue.DATA or "/" in name or ":" in name or Path(name).exists()
    if not known and "latent" in name:
        raise InputError(
            f"--dataset_name {name}: latents are read from a folder that `shortcut prepare SOURCE OUT --size 256 "
            "--vae FILE` wrote: give its path."
        )
    return opening.choose("imagenet256" if not known and "imagenet256" in name else name)


def _has_mirrored(data: Any) -> bool:
    """Whether they can be mirrored: images always, latents if their mirror images were encoded too."""
    manifest = getattr(data, "manifest", None)
    return manifest is None or manifest["kind"] == "images" or manifest["mirrored"]
