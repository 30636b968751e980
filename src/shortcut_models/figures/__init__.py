"""Pictures of a trained model and of its training; each kind is a file, and a line in the catalogue."""

from shortcut_models.figures.interpolation import draw_interpolation
from shortcut_models.figures.quality import Line, draw_quality

__all__ = ["Line", "draw_interpolation", "draw_quality"]
