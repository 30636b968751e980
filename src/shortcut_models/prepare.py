"""`shortcut prepare`: every image read once, checked, cropped, resized, maybe encoded, and kept in mapped arrays.

Latents that another tool encoded are kept in the same form.

The source is cut into shards by index. A shard is done when its note, shard-K.json, is there, and
every file is written aside and renamed: killed at any moment, the same command goes on and ends
with the same bytes. Several machines may each take some of the shards.
"""

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from shortcut_models import catalogue, choice_json
from shortcut_models.data.base import describe
from shortcut_models.data.decode import BadImage, Decoded
from shortcut_models.data.images import Images, LeftOut, Records, check_size
from shortcut_models.data.latents import Latents
from shortcut_models.data.layout import canonical, without_images
from shortcut_models.data.opening import choose
from shortcut_models.data.pixels import to_network
from shortcut_models.data.prepared import DTYPES, FILES, FORMAT, MANIFEST, MIRRORED, map_array, read_manifest
from shortcut_models.errors import InputError
from shortcut_models.files import explain, hold, lock

SHARD_ITEMS, SHARD_BYTES = 4096, 1 << 27
"""A shard ends at the first of these: it is what a killed process loses, and what it holds in memory."""
ENCODED = 16
"""Images that the VAE encodes at once."""
NAMED = 20
"""Classes that a warning names."""


class Encoder(Protocol):
    """What is asked of a VAE."""

    @property
    def identity(self) -> str:
        """A digest of its weights."""
        ...

    @property
    def file_sha256(self) -> str:
        """Of the file that they were read from, which may hold the same weights in another precision."""
        ...

    @property
    def dtype(self) -> str:
        """What it computes in, which decides the bytes."""
        ...

    @property
    def scale(self) -> float:
        """What its latents are multiplied by to train on them."""
        ...

    def encode(self, images: Any) -> tuple[Any, Any]:
        """Images (batch, H, W, 3) in [-1, 1] to mean and log variance, (batch, h, w, c), unscaled."""
        ...


def prepare(
    source: Images | Latents | str,
    out: Path,
    *,
    size: int,
    split: str = "train",
    vae: Encoder | None = None,
    mirror: bool = True,
    part: tuple[int, int] = (1, 1),
    most_left_out: float = 0.01,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write `out`: manifest.json and shards of images, or with `vae` of latents and, with `mirror`, of mirrored ones.

    `part` (k, n) does the k-th of n parts and leaves the manifest to a call for the whole, which
    does what is missing. Returns the manifest; raises InputError if `out` holds something else, if the
    source cannot be used, or if more than the share `most_left_out` of its images was left out.
    """
    _check(size, part, most_left_out, threads)
    task = _Task(files_of(source, size), split, vae, mirror and vae is not None)
    _check_apart(out, task.data)
    fresh = task.manifest()
    with _writing(out, shared=part[1] > 1):
        _start(out, task, fresh, part)
        mine = range(part[0] - 1, task.num_shards, part[1])
        waiting = [number for number in mine if not _is_done(out, task, number)]
        indices = [len(task.indices(number)) for number in mine]
        left = sum(len(task.indices(number)) for number in waiting)
        with (
            ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool,
            tqdm(
                total=sum(indices),
                initial=sum(indices) - left,
                unit="image",
                desc=f"preparing {out.name}",
                disable=not waiting,
            ) as bar,
        ):
            for number in waiting:
                _write_alone(out, task, number, pool, bar)
        # Of data that are done too, since another share may be allowed than when they were made.
        return {} if part[1] > 1 else _finish(out, task, most_left_out)


def _check(size: int, part: tuple[int, int], most_left_out: float, threads: int | None) -> None:
    check_size("size", size)
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, but must be at least 1.")
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"part is {part[0]}/{part[1]}, but must be K/N with K from 1 to N, such as 1/4.")
    if not 0 <= most_left_out <= 1:
        raise InputError(f"most-left-out is {most_left_out}, but must be a share between 0 and 1.")


def _check_apart(out: Path, data: Images | Latents) -> None:
    """Refuse to write among the source's own files, where the next scan would find a folder more."""
    place = data.place if isinstance(data, Images) else data.path
    if place and Path(place).resolve() in out.resolve().parents:
        raise InputError(f"{out} lies within {place}, which is only read: choose an OUT elsewhere.")
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(f"{out} is a {'link to nothing' if out.is_symlink() else 'file'}: choose another OUT.")


def files_of(source: Images | Latents | str, size: int | None) -> Images | Latents:
    """What is to be prepared, at this size; raises InputError for data that are no files of images or latents."""
    data = choose(source) if isinstance(source, str) else source
    if isinstance(data, Images):
        return replace(data, size=size)
    if not isinstance(data, Latents):
        raise InputError(
            f"{describe(data)} cannot be prepared: prepare takes files of images, or of latents by EDM2's or REPA's "
            "tool."
        )
    if size not in (None, data.size):
        raise InputError(f"{data.path} holds latents of images of {data.size}x{data.size}, but --size is {size}.")
    return data


@dataclass
class _Task:
    """What is to be done, and how it is cut into shards."""

    data: Images | Latents
    split: str
    vae: Encoder | None
    mirror: bool

    def __post_init__(self) -> None:
        self.records: Records = self.data.records(self.split)
        if not len(self.records):
            raise InputError(f"{describe(self.data)} holds no images in split {self.split!r} that could be read.")
        self.shape = self.data.shape
        self.image_shape, self.dtype = self.shape, np.dtype(np.uint8)
        """Of what is read of each file."""
        if self.data.latents:
            self.image_shape, self.dtype = (*self.shape[:2], 2 * self.shape[2]), np.dtype(np.float16)
            if self.vae is not None:
                raise InputError(f"{describe(self.data)} holds latents, which a VAE has made already: leave --vae out.")
        elif self.vae is not None:
            if self.image_shape[-1] != 3 or self.image_shape[0] % 8:
                raise InputError(f"images are {self.image_shape}, but the VAE takes RGB of a size that 8 divides.")
            self.shape = tuple(np.shape(self._encode(np.zeros((ENCODED, *self.image_shape), np.uint8))[0])[1:])

    def read(self, index: int) -> tuple[Decoded, int] | LeftOut:
        """As `read`; latents have the shape of the first."""
        found = read(self.data, self.records, index)
        if self.data.latents and not isinstance(found, LeftOut) and found[0].image.shape != self.image_shape:
            return LeftOut(self.records.name(index), "mode", "another shape than the first has")
        return found

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation in float16; every call of the VAE has the same number of images."""
        moments = []
        for first in range(0, len(images), ENCODED):
            some = images[first : first + ENCODED]
            full = np.concatenate([some, np.zeros((ENCODED - len(some), *some.shape[1:]), np.uint8)])
            moments.append([moment[: len(some)] for moment in self._encode(full)])
        mean, deviation = (np.concatenate(parts) for parts in zip(*moments, strict=True))
        return mean, deviation

    def _encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.vae is not None
        mean, logvar = (np.asarray(moment, np.float32) for moment in self.vae.encode(to_network(images)))
        return mean.astype(np.float16), np.exp(0.5 * logvar).astype(np.float16)

    @property
    def kind(self) -> str:
        return "latents" if self.vae is not None or self.data.latents else "images"

    @property
    def names(self) -> tuple[str, ...]:
        """What the files of arrays are called, besides that of the labels."""
        names = tuple(FILES[self.kind].values())
        return (*names, *(f"{name}{MIRRORED}" for name in names)) if self.mirror else names

    @property
    def stored(self) -> np.dtype:
        """Of the arrays, all but the labels."""
        return next(DTYPES[name] for name in FILES[self.kind])

    @property
    def item_bytes(self) -> int:
        """Size of an example on disk."""
        return DTYPES["label"].itemsize + self.stored.itemsize * math.prod(self.shape) * len(self.names)

    @property
    def shard_items(self) -> int:
        return max(min(SHARD_ITEMS, SHARD_BYTES // (int(np.prod(self.image_shape)) * self.dtype.itemsize)), 1)

    @property
    def num_shards(self) -> int:
        return -(-len(self.records) // self.shard_items)

    def indices(self, number: int) -> range:
        """The source's indices that a shard is made of."""
        return range(number * self.shard_items, min((number + 1) * self.shard_items, len(self.records)))

    def settings(self) -> dict[str, Any]:
        """What decides every byte."""
        return {
            "identity": self.data.identity(),  # Not the path, which another machine may call otherwise.
            "split": canonical(self.split),
            "size": self.data.size,
            **{name: getattr(self.data, name) for name in ("crop", "alpha", "labels") if hasattr(self.data, name)},
            "vae": None if self.vae is None else self.vae.identity,
            "vae_dtype": None if self.vae is None else self.vae.dtype,
            "mirrored": self.mirror,
            "shard_items": self.shard_items,
        }

    def manifest(self) -> dict[str, Any]:
        """The manifest of nothing done yet."""
        class_names = list(self.records.class_names) if self.data.labels else []
        return {
            "format": FORMAT,
            "kind": self.kind,
            "complete": False,
            "count": 0,
            "shape": list(self.shape),
            "num_classes": max(len(class_names), 1),
            "class_names": class_names,
            "flip": getattr(self.data, "flip", False),
            "vae": None if self.vae is None else self.vae.identity,
            "vae_file": None if self.vae is None else self.vae.file_sha256,
            "scale": None if self.vae is None else self.vae.scale,
            "latents": self.data.latents,
            "mirrored": self.mirror,
            "source": choice_json.to_json(catalogue.DATA, self.data),
            "settings": self.settings(),
        }


@contextmanager
def _writing(out: Path, shared: bool) -> Iterator[None]:
    """Keep a second command for the whole out of `out`, and say in a sentence what the disk refuses."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
        try:
            if not lock(handle, out, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB):
                raise InputError(f"another `shortcut prepare` is writing {out}: wait for it.")
            yield
        finally:
            os.close(handle)
    except OSError as error:
        raise InputError(explain(error, "what is done is kept, and the same command goes on")) from error


def _start(out: Path, task: _Task, fresh: dict[str, Any], part: tuple[int, int]) -> None:
    """Write the first manifest, `fresh`; raises InputError if `out` holds something else."""
    # Listed before the manifest is looked for, which another part may write at any moment.
    strange = [entry.name for entry in out.iterdir() if not _is_ours(entry)]
    if (out / MANIFEST).exists():
        old = read_manifest(out)
        now = json.loads(json.dumps(fresh["settings"]))
        # Older versions did not call it by its usual name.
        there = old["settings"] | {"split": canonical(str(old["settings"].get("split")))}
        lines = "".join(
            f"\n  {name}: {there.get(name)} there, {now[name]} now" for name in now if there.get(name) != now[name]
        )
        if old["class_names"] != fresh["class_names"]:
            lines += f"\n  classes: {_differing(old['class_names'], fresh['class_names'])}"
        # Of which nothing is done: its settings were refused. Another part, though, may be about to do some.
        is_bare = part[1] == 1 and not [name for name in strange if name != MANIFEST and not name.startswith(".")]
        if lines and not is_bare:
            raise InputError(
                f"{out} holds data prepared from other files or with other settings; choose another OUT:{lines}"
            )
        if not lines:
            return
    elif strange:
        raise InputError(f"{out} exists but holds no prepared data: choose another OUT, or empty it.")
    size = _told(len(task.records) * task.item_bytes)
    tqdm.write(f"{len(task.records)} {task.kind} of {describe(task.data)} become up to {size} in {out}")
    _save_json(out / MANIFEST, fresh, f".{part[0]}")


def _is_ours(entry: Path) -> bool:
    """Whether it may lie in `out` before anything is done: a manifest being written, or a split that is prepared."""
    return entry.name.startswith(f".{MANIFEST}") or (entry / MANIFEST).is_file()


def _differing(old: Sequence[str], new: Sequence[str]) -> str:
    """How two lists of classes differ, in words."""
    only = [
        f"{name!r} {where} alone"
        for names, others, where in ((old, new, "there"), (new, old, "now"))
        for name in names
        if name not in others
    ]
    return (
        ", ".join(only[:NAMED]) + (f" and {len(only) - NAMED} more" if len(only) > NAMED else "") or "in another order"
    )


def _told(size: int) -> str:
    """Bytes in words."""
    unit, count = next(((unit, one) for unit, one in (("GB", 1e9), ("MB", 1e6)) if size >= one), ("kB", 1e3))
    return f"{size / count:.3g} {unit}"


def _note(out: Path, number: int) -> Path:
    return out / f"shard-{number:05}.json"


def _read_note(out: Path, number: int) -> dict[str, Any]:
    """What was noted of a shard; raises InputError if it is damaged."""
    note = _note(out, number)
    try:
        about = json.loads(note.read_text())
        found = {name: about[name] for name in ("count", "left_out", "notes", "class_counts")}
        numbers = [found["count"], *found["notes"].values(), *found["class_counts"]]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("what should be counts are none")
        if sum(found["class_counts"]) != found["count"]:
            raise ValueError("the classes have not as many images as there are")
        found["left_out"] = [LeftOut(**bad)._asdict() for bad in found["left_out"]]
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{note} is damaged: remove it, and run the same command again.") from error


def _is_done(out: Path, task: _Task, number: int) -> bool:
    """Whether a shard was noted, and its arrays are still there, and whole."""
    if not _note(out, number).exists():
        return False
    count = _read_note(out, number)["count"]
    arrays = dict.fromkeys(task.names, (task.shape, task.stored)) | {"labels": ((), DTYPES["label"])}
    try:
        for name, (shape, dtype) in arrays.items() if count else ():
            map_array(out / f"{name}-{number:05}.npy", (count, *shape), dtype)
    except InputError:
        return False
    return True


def _write_alone(out: Path, task: _Task, number: int, pool: ThreadPoolExecutor, bar: Any) -> None:
    """Write a shard, unless another command is writing it: then wait for that, and write what it leaves undone.

    Several parts may have it to do, where they are of different numbers of parts, or one was started twice.
    """
    with hold(out / f".shard-{number:05}.lock"):
        if _is_done(out, task, number):
            bar.update(len(task.indices(number)))
        else:
            _write_shard(out, task, number, pool, bar)


def _write_shard(out: Path, task: _Task, number: int, pool: ThreadPoolExecutor, bar: Any) -> None:
    images = np.empty((len(task.indices(number)), *task.image_shape), task.dtype)
    labels, left_out, notes = [], [], Counter[str]()
    for found in pool.map(task.read, task.indices(number)):
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            images[len(labels)] = found[0].image
            labels.append(found[1])
            notes.update(found[0].notes)
        bar.update(1)
    images = images[: len(labels)]
    for name, array in _arrays(task, images).items() if labels else ():
        _save(out / f"{name}-{number:05}.npy", array)
    if labels:
        _save(out / f"labels-{number:05}.npy", np.array(labels, np.int32))
    counts = np.bincount(labels, minlength=max(len(task.records.class_names), 1)).tolist() if labels else []
    about = {
        "count": len(labels),
        "left_out": [bad._asdict() for bad in left_out],
        "notes": dict(sorted(notes.items())),
    }
    _save_json(_note(out, number), about | {"class_counts": counts})


def _arrays(task: _Task, images: np.ndarray) -> dict[str, np.ndarray]:
    if task.data.latents:
        arrays = np.split(images, 2, axis=-1)
    elif task.vae is None:
        arrays = [images]
    else:
        arrays = [*task.encode(images), *(task.encode(images[:, :, ::-1]) if task.mirror else ())]
    return dict(zip(task.names, arrays, strict=True))


def read(data: Images | Latents, records: Records, index: int) -> tuple[Decoded, int] | LeftOut:
    """An image and its label, or why there is none."""
    try:
        raw, label = records.read(index)
        return data.decode(raw), label if data.labels else 0
    except BadImage as bad:
        return LeftOut(records.name(index), bad.reason, bad.detail)


def _finish(out: Path, task: _Task, most_left_out: float) -> dict[str, Any]:
    """Merge the notes of all shards into the manifest."""
    shards = [_read_note(out, number) for number in range(task.num_shards)]
    left_out = [bad._asdict() for bad in task.records.left_out] + [bad for shard in shards for bad in shard["left_out"]]
    count, notes = sum(shard["count"] for shard in shards), Counter[str]()
    counts = np.zeros(max(len(task.records.class_names), 1), int)
    for shard in shards:
        notes.update(shard["notes"])
        counts[: len(shard["class_counts"])] += np.array(shard["class_counts"], int)
    share = len(left_out) / (count + len(left_out))
    fresh = task.manifest()
    manifest = fresh | {
        "complete": count > 0 and share <= most_left_out,
        "count": count,
        "left_out": left_out,
        "left_out_by_reason": dict(sorted(Counter(bad["reason"] for bad in left_out).items())),
        "notes": dict(sorted(notes.items())),
        "warnings": [*task.records.warnings, *bare_classes(task.records, fresh["class_names"], counts.tolist())],
        "class_counts": counts.tolist(),
        "shards": [{"count": shard["count"]} for shard in shards],
    }
    # Data that are done may lie where nothing can be written.
    if json.loads(json.dumps(manifest)) != read_manifest(out):
        _save_json(out / MANIFEST, manifest)
    if not manifest["complete"]:
        reasons = ", ".join(f"{number} {reason}" for reason, number in manifest["left_out_by_reason"].items())
        raise InputError(
            f"{len(left_out)} of {count + len(left_out)} images are left out ({reasons}), more than the share "
            f"{most_left_out:g} that may be: see left_out in {out / MANIFEST}, or allow more by --most-left-out."
        )
    return manifest


def bare_classes(records: Records, class_names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """A warning that names the classes of which no image can be used, unless the records tell that they are empty."""
    told = {without_images(name) for name in class_names}.intersection(records.warnings)
    names = [
        name for name, count in zip(class_names, counts, strict=False) if not count and without_images(name) not in told
    ]
    if not names:
        return []
    listed = ", ".join(map(repr, names[:NAMED])) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    keep = "class keeps its label" if len(names) == 1 else "classes keep their labels"
    return [f"no image of {listed} can be used; the {keep}"]


def _save(path: Path, array: np.ndarray) -> None:
    """Write an array aside, and rename it: under one name, so that a killed process leaves nothing for ever."""
    aside = path.with_name(f".{path.name}.part")
    array = np.ascontiguousarray(array)
    with aside.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data.cast("B"))  # NumPy would write the file itself, and could not say why a disk refuses.
    aside.replace(path)


def _save_json(path: Path, data: dict[str, Any], mark: str = "") -> None:
    """As `_save`; the `mark` tells apart what several processes may write at once."""
    aside = path.with_name(f".{path.name}{mark}.part")
    aside.write_text(json.dumps(data, indent=2) + "\n")
    aside.replace(path)
