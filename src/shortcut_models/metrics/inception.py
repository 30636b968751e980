"""The numbers that the field publishes, each under its protocol: see `features.protocols`.

FID (Heusel et al., arXiv 1706.08500), sFID (Nash et al., arXiv 2103.03841), Inception score, KID, precision and
recall, density and coverage. The `paper` numbers are those of kvfrans/shortcut-models; `adm` those of
openai/guided-diffusion's evaluator, with distances in float64 where it takes float16 (up to .003 of precision and
recall); `fidelity` those of torch-fidelity; `clean` that of clean-fid.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from shortcut_models.metrics.base import Arrays, Metric, Reference, ScalarMetric, Statistics, Sums
from shortcut_models.metrics.features.inception import InceptionFeatures
from shortcut_models.metrics.gaussian import Frechet, add_vectors, frechet_infinity, gaussian_of, start_sums
from shortcut_models.metrics.kernel import kid
from shortcut_models.metrics.neighbours import density_coverage, nearest_squared, precision_recall
from shortcut_models.metrics.scores import chunked_score, inception_score

PAPER, ADM, CLEAN = (InceptionFeatures(protocol=name) for name in ("paper", "adm", "clean"))


@dataclass(frozen=True, kw_only=True)
class AdmInceptionScore(ScalarMetric):
    """The mean over whole chunks of 5,000 images in their order, and what is left, from outputs without bias."""

    is_distance: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    size: int = 5000

    def empty(self) -> Sums:
        return {"scores": np.zeros(0), "waiting": np.zeros((0, 0), np.float32)}

    def add(self, sums: Sums, features: Arrays, labels: np.ndarray) -> Sums:  # noqa: ARG002
        logits = features["logits_unbiased"]
        waiting = np.concatenate([sums["waiting"].reshape(-1, logits.shape[1]), logits])
        whole = len(waiting) // self.size * self.size
        scores = [chunked_score(waiting[i : i + self.size], self.size) for i in range(0, whole, self.size)]
        return {"scores": np.concatenate([sums["scores"], scores]), "waiting": waiting[whole:]}

    def value(self, sums: Sums, reference: Reference) -> float:  # noqa: ARG002
        left = [chunked_score(sums["waiting"], self.size)] if len(sums["waiting"]) else []
        return float(np.mean([*sums["scores"], *left]))


@dataclass(frozen=True, kw_only=True)
class FidelityInceptionScore(Metric):
    """Mean and deviation over ten parts of the images, shuffled as torch-fidelity shuffles them."""

    is_distance: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    least: ClassVar[int] = 10
    rows: tuple[str, ...] = ("logits_unbiased",)

    def values(self, sums: Sums, reference: Reference, count: int) -> dict[str, float]:  # noqa: ARG002
        logits = sums["logits_unbiased"]
        shuffled = logits[np.random.RandomState(2020).permutation(len(logits))]
        mean, deviation = inception_score(shuffled, 10)
        return {f"{self.name}-{count}": mean, f"{self.name}-deviation-{count}": deviation}


@dataclass(frozen=True, kw_only=True)
class KernelDistance(ScalarMetric):
    """The kernel distance over all pairs; without bias, so that it may be below zero."""

    rows: tuple[str, ...] = ("pool",)

    def value(self, sums: Sums, reference: Reference) -> float:
        return kid(sums["pool"], reference.sums["pool"])


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall(Metric):
    """Precision and recall by third neighbours."""

    is_distance: ClassVar[bool] = False
    least: ClassVar[int] = 4
    rows: tuple[str, ...] = ("pool",)

    def values(self, sums: Sums, reference: Reference, count: int) -> dict[str, float]:
        precision, recall = precision_recall(sums["pool"], reference.sums["pool"], k=3)
        protocol = self.features.prepared_by
        return {f"precision-{protocol}-{count}": precision, f"recall-{protocol}-{count}": recall}


@dataclass(frozen=True, kw_only=True)
class DensityCoverage(Metric):
    """Density and coverage by fifth neighbours."""

    is_distance: ClassVar[bool] = False
    least: ClassVar[int] = 6
    rows: tuple[str, ...] = ("pool",)

    def values(self, sums: Sums, reference: Reference, count: int) -> dict[str, float]:
        density, coverage = density_coverage(sums["pool"], reference.sums["pool"], k=5)
        return {f"density-{count}": density, f"coverage-{count}": coverage}


@dataclass(frozen=True, kw_only=True)
class Memorisation(Metric):
    """Whether samples copy training images: how near the nearest is, and how often it stands out.

    NAME-distance is the median distance to the nearest of the training images, to be read beside that of held-out
    real images; NAME-share that of samples whose nearest training image is closer than a third of the second nearest.
    The number of training images is part of the name.
    """

    is_distance: ClassVar[bool] = False
    judges_training: ClassVar[bool] = True
    rows: tuple[str, ...] = ("pool",)

    def values(self, sums: Sums, reference: Reference, count: int) -> dict[str, float]:
        (array,) = self.rows
        fake, real = (np.asarray(given[array], np.float64) for given in (sums, reference.sums))
        near, second = np.sqrt(nearest_squared(fake, real, 2)).T
        end = f"{reference.count}-{count}"
        return {
            f"{self.name}-distance-of-{end}": float(np.median(near)),
            f"{self.name}-share-of-{end}": float(np.mean(near < second / 3)),
        }


@dataclass(frozen=True, kw_only=True)
class FidInfinity(ScalarMetric):
    """FID without the bias of the samples' number; that of the reference's stays."""

    least: ClassVar[int] = 30
    keeps_real: ClassVar[bool] = False
    rows: tuple[str, ...] = ("pool",)

    def empty(self) -> Sums:
        return start_sums()

    def add(self, sums: Sums, features: Arrays, labels: np.ndarray) -> Sums:  # noqa: ARG002
        return add_vectors(sums, features["pool"])

    def from_statistics(self, statistics: Statistics) -> Sums | None:
        return statistics.gaussians.get("pool")

    def value(self, sums: Sums, reference: Reference) -> float:
        return frechet_infinity(sums["pool"], gaussian_of(reference.sums))


FID_PAPER = Frechet(name="fid-paper", features=PAPER, array="pool", offset=1e-6, labels="random")
FID_ADM = Frechet(name="fid-adm", features=ADM, array="pool")
FID_CLEAN = Frechet(name="fid-clean", features=CLEAN, array="pool")
FID_INFINITY = FidInfinity(name="fid-infinity", features=ADM)
SFID_ADM = Frechet(name="sfid-adm", features=ADM, array="spatial")
IS_ADM = AdmInceptionScore(name="is-adm", features=ADM)
IS_FIDELITY = FidelityInceptionScore(name="is-fidelity", features=ADM)
KID = KernelDistance(name="kid", features=ADM)
PR_ADM = PrecisionRecall(name="pr-adm", features=ADM)
PRDC = DensityCoverage(name="prdc", features=ADM)
MEMORISATION = Memorisation(name="memorisation", features=ADM)
