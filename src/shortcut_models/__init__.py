"""Generative models that need one network call per image, and get better with more calls."""

from importlib import import_module

from shortcut_models.errors import InputError

_WHERE = {
    "Model": "shortcut_models.model",
    "from_pretrained": "shortcut_models.model_folder",
    "load": "shortcut_models.weights",
    "load_vae": "shortcut_models.codecs.sd_vae_file",
    "open_data": "shortcut_models.data.opening",
    "push_to_hub": "shortcut_models.model_folder",
    "save_pretrained": "shortcut_models.model_folder",
}

__all__ = ["InputError", *_WHERE]  # pyrefly: ignore[bad-dunder-all]


def __getattr__(name: str) -> object:
    # Loaded on first use: `import shortcut_models` stays quick, and the command's --help with it.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'shortcut_models' has no attribute {name!r}")
