"""Reflow: flow matching on pairs that a trained flow has made (Liu et al., "Rectified Flow", arXiv 2209.03003).

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2,   x1 = X(x0) the teacher's sample from the noise x0

The lines between the pairs cross less than those between noise and data at random, so that few Euler
steps suffice. The pairs are a data set (`shortcut pairs RUN`); training starts from the teacher. The
shortcut paper makes 50,000 pairs with 128 steps each for CelebA-HQ.

Cost: 3 forward passes per step, and those of making the pairs.
"""

from dataclasses import dataclass

from jaxtyping import Array, Float, Int, Integer

from shortcut_models.errors import InputError
from shortcut_models.objectives.flow import Loss, Velocity
from shortcut_models.objectives.flow_matching import FlowMatching


@dataclass(frozen=True)
class Reflow(FlowMatching):
    """Constants of reflow: those of flow matching."""

    def meant_for(self, steps: int) -> bool:
        """Any budget: straight lines are what it is for."""
        del steps
        return True

    def __call__(
        self,
        velocity: Velocity,
        x1: Float[Array, "batch ..."],
        label: Int[Array, " batch"],
        key: Array,
        *,
        x0: Float[Array, "batch ..."] | None = None,
        target: Velocity | None = None,
        teacher: Velocity | None = None,
        images: Integer[Array, ""] | int = 0,
        null_label: int | None = None,
    ) -> Loss:
        """See `FlowMatching`; raises InputError without x0, the other half of the pairs."""
        if x0 is None:
            raise InputError(
                "reflow learns pairs of noise and sample, which this data set does not have: make them "
                "with `shortcut pairs RUN --out FOLDER`, and train on --dataset-name FOLDER."
            )
        return super().__call__(
            velocity, x1, label, key, x0=x0, target=target, teacher=teacher, images=images, null_label=null_label
        )
