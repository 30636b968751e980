"""Training objectives: one method, one file; their names are in the catalogue."""

from shortcut_models.objectives.base import Batch, Context, Loss, Metric, Objective, Velocity
from shortcut_models.objectives.path import Times

__all__ = ["Batch", "Context", "Loss", "Metric", "Objective", "Times", "Velocity"]
