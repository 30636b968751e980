"""Data that did not come with a model: samples can be drawn and decoded, but there is nothing to train on."""

from dataclasses import dataclass

from shortcut_models.codecs.base import Codec
from shortcut_models.data.base import Data, Source
from shortcut_models.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Unavailable(Data):
    """What is known of the data of somebody else's model; opened, they say that they are not here."""

    x_shape: tuple[int, ...] = (32, 32, 4)
    """Shape of the network's input: (height, width, channels)."""
    classes: int = 1000
    """Number of classes."""
    names: tuple[str, ...] = ()
    """What the classes are called; () if nothing says so."""
    latent_scale: float | None = None
    """What latents of Stable Diffusion's VAE were multiplied by; None: the input is pixels."""

    def open(self, split: str = "train") -> Source:
        """Raises InputError: there is nothing to open."""
        del split
        raise InputError("the data of this model did not come with it: name data of your own with --data.")

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
        """Pixels, or latents of whichever VAE is there: which one it was, nothing says."""
        from shortcut_models.codecs.latents import Latents  # They need JAX; choosing data does not.
        from shortcut_models.codecs.pixels import Pixels

        if self.latent_scale is None:
            return Pixels()
        return Latents(identity="", scale=self.latent_scale, channels=self.x_shape[-1])

    def identity(self) -> str:
        """The same for all models that came without data of this shape."""
        return f"unavailable {self.x_shape} {self.classes}"
