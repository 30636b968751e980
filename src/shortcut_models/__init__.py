"""Generative models that need one network call per image, and get better with more calls."""

from shortcut_models.errors import InputError

__all__ = ["InputError", "Model", "load"]


def __getattr__(name: str) -> object:
    # Loaded on first use: `import shortcut_models` stays quick, and the command's --help with it.
    if name == "load":
        from shortcut_models.weights import load

        return load
    if name == "Model":
        from shortcut_models.model import Model

        return Model
    raise AttributeError(f"module 'shortcut_models' has no attribute {name!r}")
