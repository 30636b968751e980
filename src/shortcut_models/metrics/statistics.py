"""Files of reference statistics: our own, which say how they were made, and those of other programs, which do not.

An .npz with "mu" and "sigma" of Inception's pool features, and "mu_s" and "sigma_s" of the spatial ones where there
are any: so do the paper's code, ADM, EDM2 and clean-fid. Ours adds "about", JSON text with the protocol, the number
of images, the precision, and hashes of the network and the data.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_models.data.arrays import ArraySource
from shortcut_models.data.base import Data, Source, describe, remarks
from shortcut_models.errors import InputError
from shortcut_models.files import whole_file
from shortcut_models.interop.npz_file import read_npz
from shortcut_models.metrics.base import Metric, Reference, Statistics, Sums
from shortcut_models.metrics.checks import LARGEST
from shortcut_models.metrics.damaged import refused
from shortcut_models.metrics.features.inception import InceptionFeatures, find_inception
from shortcut_models.metrics.features.protocols import PROTOCOLS, find_protocol
from shortcut_models.metrics.gaussian import Frechet, covariance, gaussian_of
from shortcut_models.metrics.references import exact, is_grey, measure_source
from shortcut_models.terminal import Progress

ARRAYS = {"pool": ("mu", "sigma", 2048), "spatial": ("mu_s", "sigma_s", 2023)}
MOST_TEXT = 1_000_000
"""Bytes of "about"."""
MOST_IMAGES = 2**34
"""Bytes of "arr_0": 50,000 images at 256x256, or 10,000 at 512x512, and room."""
FACTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "protocol": (f"one of {', '.join(PROTOCOLS)}", lambda value: type(value) is str and value in PROTOCOLS),
    "count": ("a whole number from 2 up", lambda value: type(value) is int and value >= 2),
    "grey": ("true or false", lambda value: type(value) is bool),
    **{name: ("text", lambda value: type(value) is str) for name in ("precision", "inception", "data", "split")},
}
"""What "about" says, each with what it must be."""


def stats(
    data: Data,
    out: Path,
    protocol: str,
    inception: Path | None = None,
    any_inception: bool = False,
    split: str | None = None,
) -> dict[str, Any]:
    """Write the statistics of a data set's split, the training one by default; returns what the file records.

    A file that is there already and was made of the same data, protocol and network is kept; any other is not
    overwritten. Raises InputError for fewer than two images or where the network cannot be read.
    """
    find_protocol(protocol)
    network = find_inception(inception, any_inception)
    split = split or data.splits[0]
    about: dict[str, Any] = {
        "protocol": protocol,
        "precision": "float32 features with exact products; float64 sums",
        "inception": network.sha256,
        "data": data.identity(),
        "split": split,
    }
    if out.exists():
        known = _about(out, _arrays(out))
        if {name: known.get(name) for name in about} == about:
            return known
        raise InputError(f"{out} holds other statistics: choose another file, or remove it.")
    features = InceptionFeatures(protocol=protocol, network=network)  # pyrefly: ignore[bad-argument-type]
    metrics = [Frechet(name=array, features=features, array=array) for array in ARRAYS]
    source = exact(data, data.open(split))
    for remark in remarks(source):
        Progress.say(remark)
    if len(source) < 2:
        raise InputError(
            f"the {split} split of {describe(data)} holds {len(source)} image{'s' * (len(source) != 1)}, but "
            "statistics take at least 2."
        )
    measured = measure_source(source, np.arange(len(source)), metrics)
    about["count"] = measured.count
    if is_grey(source):  # Like ones are then compared with them.
        about["grey"] = True
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
    for metric in metrics:
        mean, sigma, _ = ARRAYS[metric.array]
        gaussian = gaussian_of(measured.sums(metric))
        arrays |= {mean: gaussian.mean, sigma: covariance(gaussian)}
    with whole_file(out) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)
    return about


def read_stats(path: Path, protocol: str | None = None) -> Statistics:
    """Read a file of statistics. Those of other programs do not say their protocol: then `protocol` must.

    Raises InputError for a file that is none, of another protocol, another size, or with NaN.
    """
    found = _arrays(path)
    about = _about(path, found)
    recorded = about.get("protocol")
    if recorded and protocol and recorded != protocol:
        raise InputError(
            f"{path} was made under the protocol {recorded}, not {protocol}: numbers of two protocols do not compare; "
            "compute them again with `shortcut stats`."
        )
    if not (recorded or protocol):
        raise InputError(
            f"{path} does not say which protocol it was made under: say --stats-protocol paper, adm or clean."
        )
    gaussians = {array: _gaussian(path, found, *names) for array, names in ARRAYS.items() if names[0] in found}
    if "pool" not in gaussians:
        raise InputError(f"{path} has no statistics: it lacks the array mu, which `shortcut stats` and others write.")
    return Statistics(path, str(recorded or protocol), int(about.get("count", 0)), gaussians, about)


def reference_images(path: Path) -> Source | None:
    """The real images in a file of statistics, of which ADM's have 10,000 for precision and recall; None without.

    Raises InputError unless they are colour images as bytes, or for a damaged file.
    """
    images = _read(path, {"arr_0": MOST_IMAGES}).get("arr_0")
    if images is None:
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise InputError(
            f"arr_0 of {path} is {images.dtype} {images.shape}, but images are uint8 (N, H, W, 3), at least one: make "
            "or download it again."
        )
    return ArraySource({"image": images, "label": np.zeros(len(images), np.int32)})


def reference_of(statistics: Statistics, metric: Metric) -> Reference | None:
    """What a file says of real samples, for one metric; None if it does not say enough.

    Raises InputError if the metric's protocol or network is another than the file's.
    """
    sums = metric.from_statistics(statistics) if metric.features.prepared_by else None
    if sums is None:
        return None
    if metric.features.prepared_by != statistics.protocol:
        raise InputError(
            f"{metric.name} prepares images as the protocol {metric.features.prepared_by}, but {statistics.path} was "
            f"made under {statistics.protocol}: numbers of two protocols do not compare."
        )
    network, made_by = getattr(metric.features, "network", None), statistics.about.get("inception")
    if network is not None and made_by and made_by != network.sha256:
        raise InputError(
            f"{statistics.path} was made with another Inception (SHA-256 {made_by[:12]}) than this one "
            f"({network.sha256[:12]}): compute them again with `shortcut stats`."
        )
    return Reference(f"statistics of {statistics.path.name}", statistics.count, sums)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    limits = {"about": MOST_TEXT}
    for mean, sigma, size in ARRAYS.values():
        limits |= {mean: 8 * size, sigma: 8 * size**2}
    found = _read(path, limits)
    if any(array.dtype.kind != "f" for name, array in found.items() if name != "about"):
        raise InputError(f"{path} has statistics that are no floating-point numbers: make or download it again.")
    return found


def _read(path: Path, limits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays that `limits` names, with the most bytes of each."""
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "No such file or directory"
        raise InputError(f"{path} cannot be read for statistics: {reason}; `shortcut stats` makes an .npz of images.")
    try:
        return read_npz(path, limits)
    except InputError as error:
        raise refused(path, error, "make or download it again") from None


def _about(path: Path, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a file says of itself; {} for those of other programs."""
    if "about" not in found:
        return {}
    wrong = "that is no list of facts"
    try:
        about = json.loads(found["about"].item())
        if type(about) is dict:
            false = [name for name, (_, is_right) in FACTS.items() if name in about and not is_right(about[name])]
            if not false:
                return about
            value = json.dumps(about[false[0]])[:60]
            wrong = f"its {false[0]} is {value}, but must be {FACTS[false[0]][0]}"
    except (TypeError, ValueError, RecursionError):
        pass
    raise InputError(f"{path} does not say of itself what `shortcut stats` writes ({wrong}): make it again.")


def _gaussian(path: Path, found: dict[str, np.ndarray], mean: str, sigma: str, size: int) -> Sums:
    for name, shape in ((mean, (size,)), (sigma, (size, size))):
        if name not in found:
            raise InputError(f"{path} has no whole statistics: it lacks the array {name}.")
        if found[name].shape != shape:
            raise InputError(
                f"{path} has {name} of shape {found[name].shape}, but Inception's is {shape}: give statistics of its "
                "pool features, not of another network or layer."
            )
        if not np.isfinite(found[name]).all():
            raise InputError(f"{path} holds NaN or infinite numbers in {name}: make or download it again.")
        if np.abs(found[name]).max() > LARGEST:
            raise InputError(f"{path} holds numbers beyond {LARGEST:g} in {name}: make or download it again.")
    _check_covariance(path, sigma, found[sigma])
    return {"mean": np.asarray(found[mean], np.float64), "covariance": np.asarray(found[sigma], np.float64)}


def _check_covariance(path: Path, name: str, matrix: np.ndarray) -> None:
    """Raise InputError for what no samples can have, and the distance would be a number like any other."""
    lopsided = float(np.abs(matrix - matrix.T).max()) > 1e-3 * float(np.abs(matrix).max())
    if lopsided or matrix.diagonal().min() < 0:
        reason = "is not symmetric" if lopsided else "has variances below zero"
        raise InputError(f"{path} has a {name} that {reason}, so it is no covariance: make or download it again.")
