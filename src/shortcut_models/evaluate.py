"""Measure a model at several step budgets, with the same noise and labels for each; or images that are there."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from shortcut_models import catalogue, processes
from shortcut_models.data import choose
from shortcut_models.data.base import Data, Source, describe, origin, remarks
from shortcut_models.errors import InputError, check_values, check_whole
from shortcut_models.metrics.base import Labels, Metric, Reference
from shortcut_models.metrics.measure import check_count, chunk_size
from shortcut_models.metrics.references import Real, exact, is_stored_grey, read, sample_shape
from shortcut_models.metrics.saved import Saved, saved_in
from shortcut_models.metrics.yardstick import Wish, Yardstick, choose_yardstick
from shortcut_models.model_folder import is_model_folder
from shortcut_models.outputs import choose_labels
from shortcut_models.sampling import MOST_STEPS
from shortcut_models.terminal import Progress
from shortcut_models.views import View, get_view

SHOWN_POINTS = 2000
MOST_IMAGES = 2**22
"""More than this are not measured without being asked for: data that are drawn on demand have no end."""
MOST_COMPARED = 2**20
"""More than this are too many for metrics that keep all of them, most to compare each with each: hours, gigabytes."""
MOST_MIXED = 2**26
"""For more than this, labels mixed like the data, all at once, take gigabytes."""

Values = dict[str, float]
Drawn = tuple[np.ndarray, np.ndarray]
"""Samples and their labels."""


class Sampler(Protocol):
    """What is needed of a model."""

    @property
    def num_classes(self) -> int:
        """Labels lie in [0, num_classes); num_classes itself is the null label."""
        ...

    def sample(self, labels: Any, steps: int, guidance: float, seed: int, /, *, first: int) -> np.ndarray:
        """One sample per label; sample i is the one that (seed, first + i) gives."""
        ...

    def decode(self, x: np.ndarray, /) -> np.ndarray:
        """Samples as people see them: images in [-1, 1], or points as they are."""
        ...


class Evaluation(NamedTuple):
    """The numbers, ready for JSON, and the first samples behind them."""

    report: dict[str, Any]
    samples: dict[int, np.ndarray]
    """For each budget, from the same noise: uint8 images (classes, H, W, C), one of each class as far as those that are
    drawn at once go; or the first points."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which samples are measured."""

    budgets: tuple[int, ...]
    """Numbers of steps."""
    count: int
    """Samples per budget and seed."""
    guidance: float = 1.0
    seed: int = 0
    seeds: int = 1
    """Sets of samples, of this seed and those that follow: numbers are means over them, beside their deviation."""

    def __post_init__(self) -> None:
        check_values("--", self, wide=("count", "seed"))
        for budget in self.budgets:
            check_whole("--steps", budget, 1, MOST_STEPS)
        check_whole("--count", self.count, 0, 2**32 - 1)  # What numbers the samples of a seed.
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}, but at least one set of samples must be drawn.")
        check_whole("--seed", self.seed, 0, 2**32 - self.seeds)


def evaluate(
    model: Sampler,
    data: Data,
    budgets: Sequence[int],
    count: int,
    guidance: float = 1.0,
    seed: int = 0,
    *,
    metrics: Sequence[str] | None = None,
    labels: Labels | None = None,
    resume: Path | None = None,
    model_key: str = "",
    seeds: int = 1,
    **wishes: Any,
) -> Evaluation:
    """Draw `count` samples for each budget of steps, and measure them.

    Samples are drawn and measured in chunks: memory does not grow with their number, but for metrics that need all
    features. `metrics` are names of the catalogue, by default those of the data set, and `wishes` what else `Wish`
    has: a protocol, statistics, Inception. `labels` are balanced, drawn at random, in the proportions of the "data",
    or "none" for samples of no class; by default as the metrics' protocols say, and "none" of a model without labels.
    With `resume`, a folder of its own, an evaluation that was killed goes on where it was and ends with the same
    numbers, if all is as it was: `model_key` says which weights are measured. The folder is empty at the end.

    Raises InputError for unknown metrics or such as do not fit the samples, for fewer than two samples or fewer than
    classes, or if the classes of model and data differ.
    """
    wish = Wish(metrics=tuple(metrics or ()), labels=labels, **wishes)
    plan = Plan(budgets=tuple(budgets), count=count, guidance=guidance, seed=seed, seeds=seeds)
    unconditional = bool(getattr(model, "unconditional", False))  # Of what else samples, nothing says so.
    yardstick = choose_yardstick(data, sample_shape(data.shows()), wish, unconditional)
    found = measure_model(model, yardstick, plan, resume, model_key)
    assert found is not None, "nobody asked it to stop"
    return found


def measure_model(
    model: Sampler,
    yardstick: Yardstick,
    plan: Plan,
    resume: Path | None = None,
    model_key: str = "",
    stopping: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """`evaluate`, by a yardstick that is chosen already; None if it was asked to stop, and is to go on later.

    Of several processes each draws its share of every chunk, and the first adds up the features of all: it alone has
    the numbers.
    """
    check_plan(model.num_classes, yardstick, plan)
    first = processes.is_first()
    settings = [plan.count, plan.guidance, plan.seed, plan.seeds, yardstick.labels, *plan.budgets]
    turns = [(seed, steps) for seed in range(plan.seed, plan.seed + plan.seeds) for steps in plan.budgets]
    with saved_in(resume, yardstick.key() | {"settings": settings, "model": model_key}) as saved:
        given = yardstick.references() if first else {}
        with _bar(plan.count * len(turns), "sample") as bar:
            for seed, steps in turns:
                name = _turn(steps, seed)
                if processes.from_first(np.bool_(name in saved.found)):
                    bar.update(plan.count)
                    continue
                draw = _drawing(model, plan, yardstick, steps, seed, saved.shown if seed == plan.seed else {})
                if not _measure(yardstick, saved, given, name, draw, plan.count, bar, stopping):
                    return None
        report = _report(yardstick, plan, saved.found, given) if first else {}
        saved.remove()
    return Evaluation(report, saved.shown)


def measure_images(
    target: Data,
    yardstick: Yardstick,
    count: int | None = None,
    seed: int = 0,
    split: str | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """The report on images that are there, all or `count` drawn by the seed; killed, it goes on as `evaluate` does.

    Raises InputError for fewer images than asked for or than two, and for an image that cannot be read, is of
    another size, or of another kind than the metrics take.
    """
    split = split or target.splits[0]
    source = exact(target, target.open(split))
    for remark in remarks(source):
        Progress.say(remark)
    indices = _choose_images(describe(target), source, count, seed)
    check_count(yardstick.metrics, len(indices), f"images of {describe(target)}")
    _check_most(yardstick.metrics, len(indices), "images")
    _check_colour(target, source, indices, yardstick)
    key = {"images": target.identity(), "settings": [len(indices), seed, split, yardstick.labels]}
    with saved_in(resume, yardstick.key() | key) as saved:
        given = yardstick.references() if processes.is_first() else {}
        if not processes.from_first(np.bool_("images" in saved.found)):
            draw = lambda own: read(source, indices[own])  # noqa: E731
            with _bar(len(indices), "image") as bar:
                _measure(yardstick, saved, given, "images", draw, len(indices), bar)
        if not processes.is_first():
            return {}
        real = yardstick.real(len(indices), given)
        report = _compare(yardstick, {"images": saved.found["images"]}, real, given, len(indices))
        saved.remove()
    report["about"]["labels"] = "none" if yardstick.labels == "none" else "those of the images"
    of = {"split": split, "count": len(indices), "of": len(source)}
    report["about"]["images"] = {"name": describe(target), **origin(target), **of}
    return report


def find_images(target: str) -> Data | None:
    """The images that a target names or holds; None where it is a model's place, or nothing is there.

    Raises InputError for a folder that holds neither images nor a run.
    """
    path = Path(target)
    if target in catalogue.DATA and not path.exists():
        return choose(target)
    if not path.exists():
        return choose(target) if target.partition(":")[0] in catalogue.DATA else None
    if (path / "run.json").exists() or is_model_folder(path):
        return None
    kinds: list[Any] = [catalogue.find("data set", catalogue.DATA, name) for name in catalogue.DATA]
    if any(kind.recognise(target) for kind in kinds):
        return choose(target)
    if path.is_dir() and not (path / f"{path.name}.tmp").is_file():
        raise InputError(f"{target} holds no images, and is no run either: it holds no run.json.")
    return None


def _check_colour(target: Data, source: Source, indices: np.ndarray, yardstick: Yardstick) -> None:
    """Raise InputError if grey images are to be compared with ones in colour, or not known to be grey."""
    looks = [m.name for m in yardstick.metrics if m.features.prepared_by and m.needs_reference]
    if looks and is_stored_grey(source, indices) and not yardstick.is_grey:
        raise InputError(
            f"{describe(target)} holds grey images, but {looks[0]} compares them with ones that are not known to be "
            "grey: compare with grey ones; or, if that is meant, write these in RGB (`shortcut prepare` does)."
        )


def _choose_images(name: str, source: Source, count: int | None, seed: int) -> Int[np.ndarray, " count"]:
    check_whole("--seed", seed, 0)
    there = len(source)
    if there < 2:
        raise InputError(f"{name} holds {there} image{'s' * (there != 1)}, but measuring takes at least 2.")
    if count is None and there > MOST_IMAGES:
        raise InputError(f"{name} holds {there} images: say how many of them to measure, --count 50000.")
    if count is not None and not 2 <= count <= there:
        raise InputError(f"--count is {count}, but {name} holds {there} images, and measuring takes at least 2.")
    if count in (None, there):
        return np.arange(there)
    return np.sort(np.random.default_rng(seed).choice(there, count, replace=False))


def _drawing(
    model: Sampler,
    plan: Plan,
    yardstick: Yardstick,
    steps: int,
    seed: int,
    shown: dict[int, np.ndarray],
) -> Callable[[slice], Drawn]:
    """The function from places in a set of samples to these; the first of them are kept to be shown."""
    labels_at, view = _labelling(yardstick, plan.count, model.num_classes, seed), _view(yardstick)

    def draw(own: slice) -> Drawn:
        labels = labels_at(own)
        samples = np.asarray(model.decode(model.sample(labels, steps, plan.guidance, seed, first=own.start)))
        if own.start == 0:
            shown[steps] = view.to_samples(samples[: max(model.num_classes, 1) if view.SINGLE else SHOWN_POINTS])
        return samples, labels

    return draw


def _labelling(yardstick: Yardstick, count: int, classes: int, seed: int) -> Callable[[slice], np.ndarray]:
    """The function from places in a set of samples to the labels there: only a mixture like the data's is kept."""
    wish = yardstick.labels
    if wish != "data":
        return lambda own: choose_labels(wish, own.stop - own.start, classes, seed, first=own.start)
    mixed = choose_labels(wish, count, classes, seed, yardstick.class_counts)
    return lambda own: mixed[own]


def _view(yardstick: Yardstick) -> View:
    """How samples are shown; where only statistics are known, they are images."""
    return get_view("images" if yardstick.data is None else yardstick.data.view)


def _bar(total: int, unit: str) -> Any:
    """A bar on the first process, with the time that is left."""
    return tqdm(total=total, unit=unit, desc="evaluating", disable=not processes.is_first(), leave=None)


def _measure(
    yardstick: Yardstick,
    saved: Saved,
    given: dict[str, Reference],
    name: str,
    draw: Callable[[slice], Drawn],
    count: int,
    bar: Any,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Draw and measure one set of samples, chunk by chunk, from where it was; False if asked to stop."""
    measurement, start = saved.measurement(yardstick.metrics, name)
    size, writes = chunk_size(yardstick.shape), processes.is_first()
    begin = int(processes.from_first(np.uint32(start)))
    bar.update(begin)
    for first in range(begin, count, size):
        if stopping():
            saved.keep(name, measurement, now=True)
            return False
        rows = min(size, count - first)
        own, kept = processes.share(rows)
        drawn, labels = draw(slice(first + own.start, first + own.stop))
        found = {
            features: {key: processes.join(array[:kept], rows) for key, array in arrays.items()}
            for features, arrays in measurement.examine(drawn).items()
        }
        labels = processes.join(labels[:kept], rows)
        if writes:
            measurement.take(found, labels)
            saved.keep(name, measurement)
        bar.update(rows)
    if writes:
        saved.found[name] = measurement.values(given)
        saved.keep("", None)
    return True


def _turn(steps: int, seed: int) -> str:
    return f"{steps} of seed {seed}"


def check_plan(classes: int, yardstick: Yardstick, plan: Plan) -> None:
    """Raise InputError unless samples of a model of so many classes can be measured so.

    They are to be as many as it takes and no more than it can take, their labels those of the real ones, and of a
    shape that can be shown.
    """
    data, labels = yardstick.data, yardstick.labels
    if labels != "none" and data is not None and classes != data.num_classes:
        raise InputError(
            f"the model has {classes} classes, but the data set has {data.num_classes}: "
            "their labels mean different things; measure without labels."
        )
    check_samples("--count", plan.count, labels, classes)
    check_count(yardstick.metrics, plan.count, "samples")
    _check_most(yardstick.metrics, plan.count, "samples")
    if labels == "data" and plan.count > MOST_MIXED:
        raise InputError(f"count is {plan.count}, but labels mixed like the data are for at most {MOST_MIXED} samples.")
    _view(yardstick).check_shape(yardstick.shape)


def _check_most(metrics: Sequence[Metric], count: int, what: str) -> None:
    """Raise InputError for more than fit a metric that keeps all of them."""
    for metric in metrics:
        if metric.rows and count > MOST_COMPARED:
            raise InputError(
                f"{metric.name} keeps all {what} to compare them, at most {MOST_COMPARED}, not {count}: lower --count, "
                "or choose other --metrics."
            )


def _report(yardstick: Yardstick, plan: Plan, found: dict[str, Values], given: dict[str, Reference]) -> dict[str, Any]:
    seeds = range(plan.seed, plan.seed + plan.seeds)
    sets = {str(steps): [found[_turn(steps, seed)] for seed in seeds] for steps in plan.budgets}
    means = {steps: {name: float(np.mean([one[name] for one in of])) for name in of[0]} for steps, of in sets.items()}
    report: dict[str, Any] = {"steps": means}
    if plan.seeds > 1:
        report["deviation"] = {
            steps: {name: float(np.std([one[name] for one in of], ddof=1)) for name in of[0]}
            for steps, of in sets.items()
        }
        report["by_seed"] = {
            str(seed): {steps: of[turn] for steps, of in sets.items()} for turn, seed in enumerate(seeds)
        }
    return report | _compare(yardstick, means, yardstick.real(plan.count, given), given, plan.count)


def _compare(
    yardstick: Yardstick, found: dict[str, Values], real: Real, given: dict[str, Reference], count: int
) -> dict[str, Any]:
    """What stands beside the numbers of one or more sets of samples."""
    report: dict[str, Any] = {} if "images" not in found else {"images": found["images"]}
    report["real"] = real.values
    if yardstick.has_held_out:
        report["ratio"] = {name: _ratios(values, real.values, yardstick.metrics) for name, values in found.items()}
    if yardstick.left_out:
        reasons = {
            why: [name for name, of in yardstick.left_out.items() if of == why] for why in yardstick.left_out.values()
        }
        report["left_out"] = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items()).rstrip(".") + "."
    report["about"] = yardstick.about(given, real)
    known = {metric.name: metric.perfect(given[metric.name], count) for metric in yardstick.metrics}
    perfect = {name: value for name, value in known.items() if value is not None}
    if perfect:
        report["perfect"] = {f"{name}-{count}": value for name, (value, _) in perfect.items()}
        low = [
            f"{least} samples, twice the features of {name}" for name, (_, least) in perfect.items() if count < least
        ]
        below = f": too low below {', '.join(low)}" if low else ""
        report["about"]["perfect"] = f"what a perfect model would get, to first order in 1 / N{below}"
    return report


def _ratios(values: Values, real: Values, metrics: Sequence[Metric]) -> Values:
    """Each distance by that of as many real samples."""
    distances = tuple(f"{metric.name}-" for metric in metrics if metric.is_distance)
    return {
        name: value / real[name]
        for name, value in values.items()
        if name.startswith(distances) and real.get(name, 0.0) > 0
    }


def read_report(path: Path) -> dict[str, Any] | None:
    """An earlier report, or None if there is none that can be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def check_samples(flag: str, count: int, labels: Labels, classes: int) -> None:
    """Raise InputError if so many samples are too few to be measured, or for their labels to be balanced."""
    if count < 2:
        raise InputError(f"{flag} is {count}, but measuring takes at least 2 samples.")
    if labels == "balanced" and count < classes:
        raise InputError(
            f"{flag} is {count}, but measuring by balanced labels takes at least {classes} samples, one of each class."
        )


def rounded(value: float, least: int = 3, like: float | None = None) -> str:
    """A number to so many decimals, or to three significant digits where these are more.

    A deviation has as many as the number that it belongs to, `like`.

    >>> rounded(0.13), rounded(0.00345678), rounded(0.0001, like=0.0035), rounded(23, 0)
    ('0.130', '0.00346', '0.00010', '23.0')
    """
    scale = abs(value if like is None else like)
    if not math.isfinite(scale) or not scale:
        return f"{value:.3f}"
    if scale < 1e-6:
        return f"{value:.2e}"
    return f"{value:.{max(least, 2 - math.floor(math.log10(scale)))}f}"


def table(report: dict[str, Any]) -> str:
    """The report as lines of text: a row per budget, a column per metric, and distances by those of real samples.

    With several seeds each number stands beside its deviation over them; a last row has what a perfect model would get.
    """
    found = report["steps"] if "steps" in report else {"": report["images"]}
    ratios, deviations = report.get("ratio", {}), report.get("deviation", {})
    names = list(next(iter(found.values())))
    measured = {name for values in ratios.values() for name in values}
    rows = [
        [
            "steps" if "steps" in report else "",
            *(h for name in names for h in (name, "ratio")[: 1 + (name in measured)]),
        ]
    ]
    others = [(title, report[title]) for title in ("real", "perfect") if report.get(title)]
    for title, values in [*found.items(), *others]:
        cells = [title or "images"]
        for name in names:
            spread = f" ± {rounded(deviations[title][name], like=values[name])}" if title in deviations else ""
            cells.append(f"{rounded(values[name])}{spread}" if name in values else "")
            if name in measured:
                ratio = ratios.get(title or "images", {}).get(name)
                cells.append("" if ratio is None else f"{ratio:.2f}")
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    left_out = [f"left out: {report['left_out']}"] if "left_out" in report else []
    return "\n".join(lines + left_out)
