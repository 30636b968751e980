"""Codecs: between what is stored, what a network sees, and images."""

from shortcut_models.codecs.base import Codec

__all__ = ["Codec"]
