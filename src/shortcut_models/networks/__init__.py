"""Networks: one a file; their names are in the catalogue."""

from shortcut_models.networks.base import Network, Params

__all__ = ["Network", "Params"]
