"""Training objectives: one method, one file."""

from shortcut_models.objectives import consistency, consistency_distillation, live_reflow, progressive
from shortcut_models.objectives.consistency import Consistency
from shortcut_models.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_models.objectives.flow import Loss, Metric, Objective, Times, Velocity
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.live_reflow import LiveReflow
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.reflow import Reflow
from shortcut_models.objectives.shortcut import ORIGINAL, Shortcut

AnyObjective = FlowMatching | Shortcut | Progressive | Consistency | ConsistencyDistillation | LiveReflow | Reflow

OBJECTIVES: dict[str, AnyObjective] = {
    "flow-matching": FlowMatching(),
    "shortcut": Shortcut(),
    "shortcut-original": ORIGINAL,
    "progressive": Progressive(),
    "progressive-original": progressive.ORIGINAL,
    "consistency-distillation": ConsistencyDistillation(),
    "consistency-distillation-original": consistency_distillation.ORIGINAL,
    "consistency": Consistency(),
    "consistency-original": consistency.ORIGINAL,
    "live-reflow": LiveReflow(),
    "live-reflow-original": live_reflow.ORIGINAL,
    "reflow": Reflow(),
}
"""Named settings, as `--objective` takes them."""

__all__ = [
    "OBJECTIVES",
    "ORIGINAL",
    "AnyObjective",
    "Consistency",
    "ConsistencyDistillation",
    "FlowMatching",
    "LiveReflow",
    "Loss",
    "Metric",
    "Objective",
    "Progressive",
    "Reflow",
    "Shortcut",
    "Times",
    "Velocity",
]
