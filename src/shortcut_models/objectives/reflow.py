"""Reflow: flow matching on pairs that a trained flow has made (Liu et al., "Rectified Flow", arXiv 2209.03003).

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2,   x1 = X(x0) the teacher's sample from the noise x0

The lines between the pairs cross less than those between noise and data at random, so that few Euler
steps suffice. The pairs are a data set (`shortcut pairs RUN`); training starts from the teacher. The
shortcut paper makes 50,000 pairs with 128 steps each for CelebA-HQ.

Cost: 3 forward passes per step, and those of making the pairs.
"""

from dataclasses import dataclass

from shortcut_models.objectives.flow_matching import FlowMatching


@dataclass(frozen=True)
class Reflow(FlowMatching):
    """Constants of reflow: those of flow matching."""

    @property
    def needs_pairs(self) -> bool:
        """The noise that the teacher started from."""
        return True

    def meant_for(self, steps: int) -> bool:
        """Any budget: straight lines are what it is for."""
        del steps
        return True
