"""Generative models that draw an image in one network call, or in as many as you choose."""

from importlib import import_module
from typing import TYPE_CHECKING

from shortcut_models.errors import InputError

if TYPE_CHECKING:
    from shortcut_models.codecs.sd_vae_file import load_vae
    from shortcut_models.data.opening import open_data
    from shortcut_models.model import Model
    from shortcut_models.model_folder import from_pretrained, push_to_hub, save_pretrained
    from shortcut_models.weights import load

_WHERE = {
    "Model": "shortcut_models.model",
    "from_pretrained": "shortcut_models.model_folder",
    "load": "shortcut_models.weights",
    "load_vae": "shortcut_models.codecs.sd_vae_file",
    "open_data": "shortcut_models.data.opening",
    "push_to_hub": "shortcut_models.model_folder",
    "save_pretrained": "shortcut_models.model_folder",
}

__all__ = [
    "InputError",
    "Model",
    "from_pretrained",
    "load",
    "load_vae",
    "open_data",
    "push_to_hub",
    "save_pretrained",
]


def __getattr__(name: str) -> object:
    # Loaded on first use: `import shortcut_models` stays quick, and the command's --help with it.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'shortcut_models' has no attribute {name!r}")
