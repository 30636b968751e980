"""What samples are measured by, and against what: metrics, and real samples or a file of their statistics.

A protocol is a metric together with what is published beside it under the same preparation of images: `SUITES`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models import catalogue
from shortcut_models.data.base import Data, Source, origin
from shortcut_models.data.proportions import class_counts
from shortcut_models.errors import InputError
from shortcut_models.metrics.base import Labels, Metric, Reference, Statistics
from shortcut_models.metrics.features.protocols import find_protocol
from shortcut_models.metrics.measure import check_metrics
from shortcut_models.metrics.references import (
    Real,
    exact,
    is_grey,
    measure_source,
    real_values,
    references,
    too_few,
    unreadable,
)
from shortcut_models.metrics.statistics import read_stats, reference_images, reference_of

SUITES = {
    "fid-paper": ("fid-paper",),
    "fid-adm": ("fid-adm", "sfid-adm", "is-adm", "pr-adm"),
    "fid-clean": ("fid-clean",),
}
"""What each protocol measures: the original has FID alone, ADM's evaluator five numbers, clean-fid one."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a user asks to be measured; empty fields are left to the data and the file of statistics."""

    metrics: tuple[str, ...] = ()
    """Names of the catalogue; by default FID under the statistics' protocol, or the data's own."""
    protocol: str = ""
    """A name in `SUITES`, or the end of one, instead of metrics: all that goes with it and can be measured."""
    labels: Labels | None = None
    """How labels of samples are chosen; by default as the metrics' protocols say."""
    inception: Path | None = None
    any_inception: bool = False
    """Take an Inception file with another hash than the published one."""
    stats: Path | None = None
    """Reference statistics for the FIDs, in place of the data."""
    stats_protocol: str | None = None
    """Under which protocol they were made, where the file does not say and `protocol` neither."""


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """Metrics that are ready, and what they compare with."""

    metrics: tuple[Metric, ...]
    shape: tuple[int, ...]
    """Of one sample."""
    left_out: dict[str, str]
    """Metrics that cannot be measured, and why."""
    labels: Labels
    class_counts: np.ndarray | None
    """Examples of each class in the data, where labels are mixed like them."""
    data: Data | None
    """Real samples; None if only a file of statistics is known."""
    no_real: str | None
    """Why there are no real samples to measure; None if there are."""
    statistics: Statistics | None
    from_file: dict[str, Reference]
    """By the metric's name what the file says of real samples."""
    images: Source | None
    """Real images that the file holds besides."""
    _known: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was measured of real samples: a training asks again and again."""

    def references(self) -> dict[str, Reference]:
        """By the metric's name the real samples that it compares with; computed once."""
        if "references" not in self._known:
            self._known["references"] = self._references()
        return self._known["references"]

    def _references(self) -> dict[str, Reference]:
        rest = [metric for metric in self.metrics if metric.name not in self.from_file]
        with_images = [metric for metric in rest if metric.needs_reference]
        if self.images is not None and with_images:
            measured = measure_source(self.images, np.arange(len(self.images)), with_images)
            what = f"{measured.count} images of {self.statistics.path.name}" if self.statistics else ""
            own = {m.name: Reference(what, measured.count, measured.sums(m)) for m in with_images}
            return self.from_file | {m.name: Reference("none", 0, {}) for m in rest} | own
        if self.data is not None and self.no_real is None:
            return self.from_file | references(self.data, rest)
        return self.from_file | {metric.name: Reference("none", 0, {}) for metric in rest}

    def real(self, count: int, given: dict[str, Reference]) -> Real:
        """What as many real samples get; nothing, and why, where there are none."""
        if self.data is None or self.no_real is not None:
            return Real({}, f"none: {self.no_real}")
        if count not in self._known:
            self._known[count] = real_values(self.data, self.metrics, count, given if self.from_file else None)
        return self._known[count]

    @property
    def is_grey(self) -> bool:
        """Whether the real samples are images without colour; False where a file of statistics does not say so."""
        if self.from_file and not (self.statistics and self.statistics.about.get("grey")):
            return False
        if self.images is not None:
            return is_grey(self.images)
        if self.data is None or self.no_real is not None:
            return bool(self.from_file)
        return is_grey(exact(self.data, self.data.open(self.data.splits[0])))

    @property
    def has_held_out(self) -> bool:
        """Whether the real samples are ones that training never saw."""
        return self.data is not None and self.no_real is None and self.data.held_out is not None

    def key(self) -> dict[str, Any]:
        """What a number depends on, besides the samples."""
        return {
            "data": None if self.data is None else self.data.identity(),
            "metrics": [_told(metric) for metric in self.metrics],
            "stats": None if self.statistics is None else sha256_of(self.statistics.path),
        }

    def about(self, given: dict[str, Reference], real: Real) -> dict[str, Any]:
        """What has to be known to repeat the numbers, and to see why another program's differ, ready for JSON."""
        found: dict[str, Any] = {
            "labels": self.labels,
            "real": real.what,
            "reference": {m.name: given[m.name].what for m in self.metrics if m.needs_reference},
            "metrics": {metric.name: constants(metric) for metric in self.metrics},
        }
        if self.class_counts is not None:
            found["class_counts"] = self.class_counts.tolist()
        if self.data is not None:
            found["data"] = origin(self.data)
        if self.statistics is not None:
            path, sha256 = self.statistics.path, sha256_of(self.statistics.path)
            known = {"protocol": self.statistics.protocol, "count": self.statistics.count or None}
            found["stats"] = {
                "file": str(path.absolute()),
                "sha256": sha256,
                **known,
                "recorded": self.statistics.about,
            }
        networks = {_network(metric) for metric in self.metrics} - {None}
        if networks:
            found["inception"] = networks.pop()
        return found


def choose_yardstick(data: Data | None, shape: tuple[int, ...], wish: Wish, unconditional: bool = False) -> Yardstick:
    """The yardstick for samples of this shape; `unconditional` ones have no labels to agree with.

    Raises InputError for unknown metrics or such as do not fit the samples, for statistics of another protocol,
    where the network cannot be read, and where nothing is left to measure or to compare with.
    """
    data = None if data is None else data.shows()
    if wish.stats_protocol and not wish.stats:
        raise InputError(
            f"--stats-protocol {wish.stats_protocol} says how the file of --stats was made: name that too, or leave it "
            "out."
        )
    names, suite = _names(data, wish)
    statistics = read_stats(wish.stats, _stats_protocol(wish)) if wish.stats else None
    if statistics and not names:
        names = (f"fid-{statistics.protocol}",)
    chosen = [catalogue.find("metric", catalogue.METRICS, name) for name in names or (data.metrics if data else ())]
    check_metrics(chosen, shape)
    labels = wish.labels or ("none" if unconditional else _labels_of(chosen))
    counts = _class_counts(data) if labels == "data" else None
    silent = "no labels were asked for, so there are none to agree with"
    left_out = {metric.name: silent for metric in chosen if labels == "none" and metric.needs_labels}
    known = _from_file(statistics, [metric for metric in chosen if metric.name not in left_out])
    no_real = "no data were named by --data." if data is None else unreadable(data)
    wanting = [m for m in chosen if m.needs_reference and m.name not in known and m.name not in left_out]
    images = reference_images(statistics.path) if statistics and wanting else None
    if statistics and images is not None:
        for metric in wanting:
            if len(images) < metric.least:
                raise too_few(metric, len(images), str(statistics.path))
    if images is None and no_real and wanting:
        reason = f"there are no real images to compare with: {no_real}"
        if not suite or wanting[0] is chosen[0]:  # A protocol without its FID is none.
            raise InputError(f"{wanting[0].name} cannot be measured: {reason}")
        left_out |= {metric.name: reason for metric in wanting}
    kept = [metric for metric in chosen if metric.name not in left_out]
    if not kept:
        without = "without labels " if labels == "none" else ""
        raise InputError(
            f"{without}nothing is left to measure of {', '.join(m.name for m in chosen)}: {_why(left_out)}."
        )
    ready = [replace(metric, features=metric.features.ready(wish.inception, wish.any_inception)) for metric in kept]
    for metric in ready:
        if statistics:
            reference_of(statistics, metric)  # Once more: now the network is known, which must be the file's.
    return Yardstick(
        metrics=tuple(ready),
        shape=shape,
        left_out=left_out,
        labels=labels,
        class_counts=counts,
        data=data,
        no_real=no_real,
        statistics=statistics,
        from_file=known,
        images=images,
    )


def constants(metric: Metric) -> dict[str, Any]:
    """All that defines a metric but its weights: its constants, and how its features prepare images."""
    names = [known.name for known in fields(metric) if known.name not in ("name", "features")]
    own = {name: getattr(metric, name) for name in names}
    prepared = metric.features.prepared_by
    found = {"features": metric.features.name, **own, "takes": metric.features.takes}
    return found | ({"prepared": asdict(find_protocol(prepared))} if prepared else {})


def sha256_of(path: Path) -> str:
    """A digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def full_protocol(name: str) -> str:
    """A protocol's full name, from that or its end; raises InputError, listing the names, for an unknown one."""
    found = name if name in SUITES else f"fid-{name}"
    if found not in SUITES:
        raise InputError(f"--protocol {name} is unknown: the protocols are {', '.join(SUITES)}.")
    return found


def _names(data: Data | None, wish: Wish) -> tuple[tuple[str, ...], bool]:
    """Names of metrics, none if they follow from something else, and whether they are a suite."""
    if wish.protocol and wish.metrics:
        raise InputError(f"--protocol {wish.protocol} stands for metrics: give it or --metrics, not both.")
    if wish.protocol:
        return SUITES[full_protocol(wish.protocol)], True
    if not wish.metrics and not wish.stats and data is None:
        raise InputError("there is nothing to compare with: give --stats FILE or --data NAME_OR_PATH.")
    return wish.metrics, False


def _stats_protocol(wish: Wish) -> str | None:
    """What the user says of foreign statistics: in words, or by asking for the numbers of a protocol."""
    asked = full_protocol(wish.protocol).removeprefix("fid-") if wish.protocol else None
    return wish.stats_protocol or asked


def _from_file(statistics: Statistics | None, metrics: Sequence[Metric]) -> dict[str, Reference]:
    if statistics is None:
        return {}
    found = {metric.name: reference_of(statistics, metric) for metric in metrics}
    known = {name: reference for name, reference in found.items() if reference is not None}
    if not known and reference_images(statistics.path) is None:
        raise InputError(f"{statistics.path} serves none of {', '.join(found)}: choose metrics such as fid-adm.")
    return known


def _labels_of(metrics: Sequence[Metric]) -> Labels:
    """The labels that all protocols want."""
    wanted = {metric.labels: metric.name for metric in metrics}
    if len(wanted) > 1:
        words = " but ".join(f"{name} takes {labels} labels" for labels, name in wanted.items())
        raise InputError(f"{words}: say which labels to take, or measure them one after the other.")
    return next(iter(wanted))


def _class_counts(data: Data | None) -> np.ndarray:
    if data is None:
        raise InputError("--labels data mixes classes as real images are: say whose, by --data NAME_OR_PATH.")
    return class_counts(data)


def _why(left_out: dict[str, str]) -> str:
    return "; ".join(dict.fromkeys(left_out.values()))


def _network(metric: Metric) -> str | None:
    return getattr(getattr(metric.features, "network", None), "sha256", None)


def _told(metric: Metric) -> str:
    """A metric with the network behind it, whose numbers differ with its weights."""
    return f"{metric.name} {_network(metric) or ''}".rstrip()
