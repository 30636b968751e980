"""From stored items to the network's x, and from samples back to images."""

from shortcut_models.codecs.base import Codec
from shortcut_models.codecs.pixels import Pixels

__all__ = ["Codec", "Pixels"]
