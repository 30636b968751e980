"""Label agreement: the share of the samples that a classifier takes for the class that was asked for."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shortcut_models.metrics.base import Arrays, Reference, ScalarMetric, Sums
from shortcut_models.metrics.features.classifier import DIGITNET1, FASHIONNET1, GLYPHNET1


@dataclass(frozen=True, kw_only=True)
class Agreement(ScalarMetric):
    """Share of samples whose predicted label is the one asked for, 0 to 1."""

    is_distance: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False

    def empty(self) -> Sums:
        return {"right": np.int64(0), "count": np.int64(0)}

    def add(self, sums: Sums, features: Arrays, labels: np.ndarray) -> Sums:
        right = np.count_nonzero(features["predicted"] == labels)
        return {"right": sums["right"] + right, "count": sums["count"] + len(labels)}

    def value(self, sums: Sums, reference: Reference) -> float:  # noqa: ARG002
        return float(sums["right"] / sums["count"])


AGREEMENT_DIGITNET1 = Agreement(name="agreement-digitnet1", features=DIGITNET1)
AGREEMENT_FASHIONNET1 = Agreement(name="agreement-fashionnet1", features=FASHIONNET1)
AGREEMENT_GLYPHNET1 = Agreement(name="agreement-glyphnet1", features=GLYPHNET1)
