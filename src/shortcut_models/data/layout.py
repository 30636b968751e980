"""From the names of files in a folder or an archive to splits, classes and images.

At the top, folders called train, val, test and the like are splits; below, a class is the first
folder of a name, sorted by code point, as for torchvision. Without folders there are no classes.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from shortcut_models.data.images import LeftOut
from shortcut_models.errors import InputError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
"""Each split, and what folders and files call it."""

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".avif"),
        # Images too, but of formats that are not read: they are counted, and the reason told.
        *(".heic", ".heif", ".jp2", ".jxl", ".svg", ".ico", ".eps"),
    )
)
LABELS = "dataset.json"
"""Where EDM2 and StyleGAN keep labels: {"labels": [[name, label], ...]}, or null."""

MOST_CLASSES = 1_000_000
"""More than any data set has: a label beyond is damage, and would name as many classes."""

_IGNORED = frozenset(("__macosx", "thumbs.db", "desktop.ini"))


@dataclass
class Listing:
    """The image files of one split."""

    names: list[str]
    """Paths below the root, with slashes."""
    labels: np.ndarray
    """int32; 0 where there are no classes."""
    class_names: tuple[str, ...] = ()
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def canonical(split: str) -> str:
    """A split's usual name."""
    return next((name for name, aliases in SPLITS.items() if split.lower() in aliases), split)


def numbered(labels: Collection[int], where: object) -> tuple[str, ...]:
    """Names of classes of which only the labels are known: their numbers, up to the largest.

    Raises InputError, naming `where` they are from, for labels that no data set has.
    """
    if not len(labels):
        return ()
    for label in (min(labels), max(labels)):
        if not 0 <= label < MOST_CLASSES:
            raise InputError(f"{where} has a label {label:.4g}, but labels lie between 0 and {MOST_CLASSES - 1}.")
    return tuple(map(str, range(max(labels) + 1)))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is the system's own, such as `._a.png` or Thumbs.db."""
    return name.startswith(".") or name.lower() in _IGNORED


def looks_like_image(name: str, head: bytes = b"") -> bool:
    """By its suffix, or, if it has none, by its first bytes."""
    suffix = PurePosixPath(name).suffix.lower()
    magic = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
    return suffix in SUFFIXES if suffix else head.startswith(magic)


def lay_out(
    names: Iterable[str], folders: Iterable[str] = (), labels: dict[str, Any] | None = None
) -> dict[str, Listing]:
    """The listing of each split: of image files by name, folders that may be empty, and labels from `read_labels`.

    Data without splits are "train" alone. Raises InputError for labels that cannot be right.
    """
    names = sorted(names)
    if labels is not None:
        return {"train": _labelled(names, labels)}
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    splits, others = (
        sorted(top for top in tops if (canonical(top) in SPLITS) == is_split) for is_split in (True, False)
    )
    if others and {"train"} < set(map(canonical, splits)):
        raise InputError(
            f"the folders {' and '.join(splits)} are called as splits are, but {others[0]!r} beside them is not: move "
            f"it away, name one split's folder, such as {splits[-1]}, or rename them if they are classes."
        )
    if not tops or any(canonical(top) not in SPLITS for top in tops):
        return {"train": _classes(names, "", [folder for folder in folders if "/" not in folder])}
    classes = sorted({name.split("/")[1] for name in names if name.count("/") > 1})
    classes = sorted({*classes, *(folder.split("/")[1] for folder in folders if folder.count("/") == 1)})
    found = {}
    for split in (split for split in SPLITS if split in map(canonical, tops)):
        own = [top for top in sorted(tops) if canonical(top) == split]
        if len(own) > 1:
            raise InputError(f"the folders {' and '.join(own)} are both called as the {split} split: rename one.")
        found[split] = _classes([name for name in names if name.startswith(f"{own[0]}/")], f"{own[0]}/", classes)
    loose = [LeftOut(name, "no_class_folder", "beside the splits") for name in names if "/" not in name]
    next(iter(found.values())).left_out.extend(loose)
    return found


def common_folder(names: Collection[str]) -> str:
    """The folder, as "pets/", that all files lie in, if it has folders itself and is no split; else "".

    Where a whole folder was zipped, it stands above those of the classes.
    """
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) != 1 or canonical(top := tops.pop()) in SPLITS:
        return ""
    return f"{top}/" if any(name.count("/") > 1 for name in names) else ""


def _classes(names: list[str], prefix: str, folders: Iterable[str]) -> Listing:
    """One split: names below `prefix`; `folders` are classes even if they are empty."""
    inside = [name.removeprefix(prefix) for name in names]
    used = {name.split("/", 1)[0] for name in inside if "/" in name}
    if not used:
        return Listing(names, np.zeros(len(names), np.int32))
    classes = sorted(used | set(folders))
    number = {name: index for index, name in enumerate(classes)}
    kept = [(name, part.split("/", 1)[0]) for name, part in zip(names, inside, strict=True) if "/" in part]
    loose = [name for name, part in zip(names, inside, strict=True) if "/" not in part]
    return Listing(
        [name for name, _ in kept],
        np.array([number[folder] for _, folder in kept], np.int32),
        tuple(classes),
        [LeftOut(name, "no_class_folder", "beside the folders of the classes") for name in loose],
        _doubts(classes, used),
    )


def without_images(name: str) -> str:
    """What is said of a class whose folder holds no image file."""
    return f"class {name!r} has no images; it keeps its label"


def _doubts(classes: list[str], used: set[str]) -> list[str]:
    """What is odd about the names of classes."""
    found = [without_images(name) for name in classes if name not in used]
    lower: dict[str, str] = {}
    for name in classes:
        if name.lower() in lower:
            found.append(f"{lower[name.lower()]!r} and {name!r} differ only in case: they are two classes here")
        lower.setdefault(name.lower(), name)
    numbers = [name for name in classes if name.isdecimal()]
    if len(numbers) == len(classes) and numbers != sorted(numbers, key=int):
        found.append("classes are sorted as text, so that 10 comes before 2: class_names says which label is which")
    return found


def read_labels(text: bytes | None) -> tuple[dict[str, Any] | None, list[str]]:
    """Labels by name from a dataset.json, {} if it says that there are none; and warnings.

    None without the file, and for another tool's, which is not used. Raises InputError if it is damaged.
    """
    if text is None:
        return None, []
    try:
        held = json.loads(text)
        # EDM2 and StyleGAN always write the key, with null where there are no labels.
        if not isinstance(held, dict) or "labels" not in held:
            return None, [f'{LABELS} holds no "labels" and is not used']
        pairs = held["labels"]
        return {} if pairs is None else {str(name): label for name, label in pairs}, []
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f'{LABELS} is damaged ({error}): it should hold {{"labels": [[name, label], ...]}}.'
        ) from error


def _labelled(names: list[str], given: dict[str, Any]) -> Listing:
    """Labels by name, as EDM2 and StyleGAN write them."""
    if not given:
        return Listing(names, np.zeros(len(names), np.int32))
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"{LABELS} has no label for {missing[0]}: every image needs one, or none has.")
    if not all(type(label) is int for label in given.values()):
        raise InputError(f"{LABELS} has labels that are no whole numbers: label vectors are not supported.")
    class_names = numbered(given.values(), LABELS)
    absent = [
        LeftOut(name, "missing", f"named in {LABELS}, but not there") for name in sorted(given.keys() - set(names))
    ]
    return Listing(names, np.array([given[name] for name in names], np.int32), class_names, absent)
