"""Training objectives: one method, one file."""

from shortcut_models.objectives.flow import Loss, Metric, Objective, Times, Velocity
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut

OBJECTIVES: dict[str, FlowMatching | Shortcut] = {
    "flow-matching": FlowMatching(),
    "shortcut": Shortcut(),
    "shortcut-original": ORIGINAL,
}
"""Named settings, as `--objective` takes them."""

__all__ = ["OBJECTIVES", "ORIGINAL", "FlowMatching", "Loss", "Metric", "Objective", "Shortcut", "Times", "Velocity"]
