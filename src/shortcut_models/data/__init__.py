"""Data sets: each choice a frozen dataclass in a file of its own, which opens a source of examples."""

from shortcut_models.data.base import Batch, Data, Source, take
from shortcut_models.data.opening import choose, open_data

__all__ = ["Batch", "Data", "Source", "choose", "open_data", "take"]
