"""Data sets: each choice a frozen dataclass in a file of its own, which opens a source of examples."""

from shortcut_models.data.base import Batch, Data, Source, data_from_json, data_to_json, take
from shortcut_models.data.opening import choose, open_data

__all__ = ["Batch", "Data", "Source", "choose", "data_from_json", "data_to_json", "open_data", "open_source", "take"]


def open_source(name: str) -> Source:
    """For callers that do not take Data yet."""
    return open_data(name)
