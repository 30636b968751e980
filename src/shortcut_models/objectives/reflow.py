"""Reflow: flow matching on pairs that a trained flow has made (Liu et al., "Rectified Flow", arXiv 2209.03003).

    L = E || s(x_t, t, 0) - (x1 - x0) ||^2,   x1 = X(x0) the teacher's sample from the noise x0

The lines between the pairs cross less than those between noise and data at random, so that few Euler
steps suffice. The pairs are a data set (`shortcut pairs RUN`); training starts from the teacher. The
shortcut paper makes 50,000 pairs with 128 steps each for CelebA-HQ. `ORIGINAL` has the constants of the
official code, which trains its `naive` objective on such pairs.

Cost: 3 forward passes per step, and those of making the pairs.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array

from shortcut_models.errors import InputError
from shortcut_models.objectives.base import Batch, Context, Loss, Velocity
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.path import Times


@dataclass(frozen=True, kw_only=True)
class Reflow(FlowMatching):
    """Constants of reflow: those of flow matching."""

    needs_pairs: ClassVar[bool] = True

    def supports(self, steps: int) -> bool:
        """Any budget: straight lines are what it is for."""
        del steps
        return True

    def __call__(self, velocity: Velocity, batch: Batch, key: Array, given: Context) -> Loss:
        """See `FlowMatching`; raises InputError for a batch without the noise of its pairs."""
        if batch.x0 is None:
            raise InputError("reflow learns pairs of noise and sample, but this batch has no noise, Batch.x0.")
        return super().__call__(velocity, batch, key, given)


ORIGINAL = Reflow(times=Times(kind="grid", grid=128), noise_floor=1e-5, averaging="constant")
"""The official code's constants."""
