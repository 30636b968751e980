"""Data that did not come with a model: samples can be drawn and decoded, but there is nothing to train on."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from shortcut_models import choice_json
from shortcut_models.codecs.base import Codec
from shortcut_models.data.base import Data, Source
from shortcut_models.data.latents import codec_of
from shortcut_models.errors import InputError

MOST_NAMES = 30_000
"""Names of classes that are noted; a run's run.json is not to outgrow what is read of it."""


@dataclass(frozen=True, kw_only=True)
class Unavailable(Data):
    """What is known of the data of a model that came without; opened, they say that they are not here."""

    x_shape: tuple[int, ...] = (32, 32, 4)
    """Shape of the network's input: (height, width, channels)."""
    classes: int = 1000
    """Number of classes."""
    names: tuple[str, ...] = ()
    """What the classes are called; () if nothing says so."""
    latent_scale: float | None = None
    """What latents of Stable Diffusion's VAE were multiplied by; None: the input is pixels."""
    vae_identity: str = ""
    """SHA-256 of that VAE's weights; without, any is taken."""
    encoded_by: Literal["", "edm2"] = ""
    """Whose tool made the latents: EDM2's are whitened besides."""

    def __post_init__(self) -> None:
        if min((*self.x_shape, self.classes), default=0) < 1:
            raise InputError(f"data of shape {self.x_shape} in {self.classes} classes are none")
        if self.latent_scale is not None and not 0 < self.latent_scale < math.inf:
            raise InputError(f"data.latent_scale is {self.latent_scale}, but must be a number above 0.")

    def open(self, split: str = "train") -> Source:
        """Raises InputError: there is nothing to open."""
        del split
        raise InputError(
            "the data of this model did not come with it, or are no longer where they were: name them with --data."
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The field."""
        return self.x_shape

    @property
    def num_classes(self) -> int:
        """The field."""
        return self.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The field."""
        return self.names

    @property
    def codec(self) -> Codec:
        """Pixels, or latents of the VAE that is named, or else of whichever is there."""
        if self.latent_scale is None:
            return super().codec
        sizes = {"scale": self.latent_scale, "channels": self.x_shape[-1]}
        return codec_of(self.encoded_by, self.vae_identity, **sizes)

    def identity(self) -> str:
        """The same for all models that came without data of this shape."""
        return f"unavailable {self.x_shape} {self.classes}"


def stand_in(data: Data) -> Unavailable:
    """What a run notes of its data: enough to sample and decode by when they are no longer where they were."""
    names, codec = data.class_names, data.codec
    about: dict[str, Any] = {"x_shape": data.shape, "classes": data.num_classes}
    about["names"] = names if len(names) <= MOST_NAMES else ()
    for name, field in (("latent_scale", "scale"), ("encoded_by", "encoded_by")):
        if hasattr(codec, field):
            about[name] = getattr(codec, field)
    return Unavailable(**about, vae_identity=codec.identity if "latent_scale" in about else "")


def what_is_known(shape: tuple[int, ...], classes: int, about: dict[str, Any]) -> Unavailable:
    """The stand-in for data that are not here, by what a model folder's configuration says besides.

    Raises InputError if that is damaged.
    """
    codec = about.get("codec")
    if type(codec) is not dict:
        raise InputError("its field codec is missing, or of another kind")
    fields = {"x_shape": shape, "classes": classes, "names": about.get("class_names"), "latent_scale": None}
    if "scale" in codec:
        fields |= {"latent_scale": codec["scale"], "vae_identity": codec.get("identity")}
    fields["encoded_by"] = codec.get("encoded_by", "")
    return choice_json.build(Unavailable, fields, "shows.", "unavailable.")
