"""The jumps of models that others trained, for which no method of ours stands.

An objective decides how its networks are sampled. These do nothing else: they cannot train.
"""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Array

from shortcut_models import catalogue
from shortcut_models.errors import InputError
from shortcut_models.interop.epsilon_dit import ddim_jumps
from shortcut_models.interop.importing import Imported
from shortcut_models.objectives.base import Batch, Context, Loss, Objective, Velocity
from shortcut_models.sampling import Jumps, uniform_jumps

OURS = {"naive": "flow-matching", "livereflow": "live-reflow"}
"""The official code's training types that have another name here."""
SCALE = 0.18215
"""What everyone but MeanFlow's code multiplies latents by (CompVis' latent-diffusion, scale_factor)."""


@dataclass(frozen=True, kw_only=True)
class Sampler(Objective):
    """An objective that only samples."""

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """Raises InputError."""
        del velocity, batch, key, given
        raise InputError("this model can only be sampled: train with an objective of the catalogue.")


@dataclass(frozen=True, kw_only=True)
class FewStep(Sampler):
    """Even jumps whose length the network is told, as MeanFlow samples (arXiv 2505.13447, algorithm 2)."""

    def jumps(self, steps: int) -> Jumps:
        """Jumps of length 1/steps."""
        return uniform_jumps(steps)


@dataclass(frozen=True, kw_only=True)
class Ddim(Sampler):
    """DDIM without noise (arXiv 2010.02502), for networks that predict noise."""

    def jumps(self, steps: int) -> Jumps:
        """The jumps between DDIM's steps."""
        return ddim_jumps(steps)


def objective_of(imported: Imported) -> Objective:
    """What an imported network is sampled by: the method that it was trained with, or the nearest that jumps so."""
    if imported.about["format"] == "official":
        kind = imported.about["train_type"]
        found = catalogue.find("objective", catalogue.OBJECTIVES, f"{OURS.get(kind, kind)}-original")
    else:
        kinds: dict[str, Any] = {"few-step": FewStep, "wrapper": Ddim}
        flow = catalogue.find("objective", catalogue.OBJECTIVES, "flow-matching")
        found = kinds.get(imported.kind, flow)()
    return found if imported.has_null_label else replace(found, label_dropout=0.0)


def data_of(imported: Imported) -> Any:
    """What is known of the data: shape and classes; of four channels, latents of Stable Diffusion's VAE."""
    network = imported.network
    scale = float(imported.about.get("latent_scale", SCALE)) if network.shape[-1] == 4 else None
    cls = catalogue.find("data set", catalogue.DATA, "unavailable")
    return cls(x_shape=network.shape, classes=network.num_classes, latent_scale=scale)
