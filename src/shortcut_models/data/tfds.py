"""Images that TensorFlow Datasets prepared on disk, in TFRecord or ArrayRecord files, without TensorFlow.

The original's data sets are of this kind: ROOT/NAME[/CONFIG]/VERSION, with ROOT the environment's
TFDS_DATA_DIR or ~/tensorflow_datasets.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from shortcut_models.data.cache import remembered
from shortcut_models.data.decode import BadImage
from shortcut_models.data.images import Images, LeftOut
from shortcut_models.data.layout import SPLITS, canonical, looks_like_image, numbered
from shortcut_models.data.tfrecord import index_file, parse_example
from shortcut_models.errors import InputError
from shortcut_models.files import check_local

INFO = "dataset_info.json"
MIRRORED = ("imagenet2012", "celebahq256")
"""Data sets that the original mirrors in training; LSUN is none of them."""


@dataclass(frozen=True, kw_only=True)
class Tfds(Images):
    """A data set that TFDS prepared: by path, or by its name below the root."""

    names: tuple[str, ...] = ()
    """Names below the root; the first that is there, and has a split for training, is taken."""
    prefix: str = ""
    """What the splits' names begin with, such as `church-`."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """A version's folder, one of folders with versions, or a name below the root."""
        path = Path(place)
        if not path.exists() and "/" not in place and (root() / place).is_dir():
            path = root() / place
        # Nothing is named by what it might become.
        return [cls(path=str(found), flip=_name(found) in MIRRORED) for found in _versions(path)]

    @property
    def unnamed(self) -> bool:
        """Names below TFDS's root will do."""
        return not self.path and not self.names

    @property
    def is_here(self) -> bool:
        """Whether the path, or one of the names below TFDS's root, is a data set."""
        try:
            return self._folder.exists()
        except InputError:
            return False

    @property
    def place(self) -> str:
        """The folder of the version."""
        return str(self._folder)

    @cached_property
    def _folder(self) -> Path:
        if self.path:
            found = _versions(Path(self.path))
            if len(found) != 1:
                raise InputError(
                    f"{self.path} holds {len(found) or 'no'} data sets of TFDS: name the folder of one version, "
                    "such as NAME/1.0.0."
                )
            return found[0]
        for name in self.names:
            for found in _versions(root() / name):
                if "train" in _split_names(found, self.prefix):
                    return found
        raise InputError(
            f"{' or '.join(self.names)} is not in {root()}: set TFDS_DATA_DIR to the folder in which TFDS prepared it, "
            f"or name its own folder."
        )

    @cached_property
    def _splits(self) -> dict[str, str]:
        return _split_names(self._folder, self.prefix)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of TFDS, under their usual names."""
        return tuple(self._splits)

    def records(self, split: str) -> "ExampleRecords":
        """The examples of a split, in the order of the files."""
        names = self._splits
        split = next((name for name, own in names.items() if own == split), canonical(split))
        self.check_split(split)
        info = _info(self._folder)
        about = next(one for one in info["splits"] if one["name"] == names[split])
        lengths = info["shards"][names[split]]
        files = [self._folder / name for name in _shard_names(info, about, len(lengths))]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file} is missing: the data set was copied in part, or is still being built.")
        return ExampleRecords(self, split, files, lengths, info.get("fileFormat") or "tfrecord")

    @property
    def class_names(self) -> tuple[str, ...]:
        """As in TFDS's list of labels; numbers if it has none."""
        if not self.labels:
            return ()
        listed = self._folder / "label.labels.txt"
        if listed.is_file():
            try:
                return tuple(listed.read_text().splitlines())
            except (OSError, ValueError) as error:
                raise InputError(f"{listed} cannot be read ({error}): copy the data set again.") from error
        count = _count_classes(self._folder)
        return numbered([count - 1], self._folder / "features.json") if count else ()

    def fingerprint(self) -> Iterable[str]:
        """What TFDS says of its splits."""
        yield json.dumps([_info(self._folder).get(name) for name in ("name", "version", "splits")])


def root() -> Path:
    """Where TFDS prepares data sets; raises InputError for a remote store."""
    named = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    check_local("TFDS_DATA_DIR", named)
    return Path(named).expanduser()


def _versions(path: Path) -> list[Path]:
    """Folders of one version each, the newest of each data set at or below `path`.

    Raises InputError where a data set is still being built.
    """
    lacking = [name for name in (INFO, "features.json") if not (path / name).is_file()]
    if path.name.startswith("incomplete.") and len(lacking) < 2:
        raise InputError(f"{path} is still being built by TFDS: wait for it, or build it again.")
    if not lacking:
        return [path]
    if len(lacking) == 1 and any(path.glob("*record-*")):
        raise InputError(f"{path} lacks {lacking[0]}: the data set was copied in part, or is still being built.")
    found, folders = [], _folders(path)
    building = [folder for folder in folders if folder.name.startswith("incomplete.")]
    versions = [folder for folder in folders if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)]
    whole = [folder for folder in versions if (folder / INFO).is_file()]
    if whole:
        return [max(whole, key=lambda folder: tuple(map(int, folder.name.split("."))))]
    if building:
        raise InputError(f"{path} is still being built by TFDS: {building[0].name} is not complete.")
    for folder in folders:
        # A name above versions, or a name above configurations above versions; not a search of the whole disk.
        for below in (folder, *_folders(folder)):
            if any(re.fullmatch(r"\d+\.\d+\.\d+|incomplete\..*", one.name) for one in _folders(below)):
                found += _versions(below)
    return found


def _folders(path: Path) -> list[Path]:
    """Folders in one of TFDS's, which holds no image files: a folder of a thousand classes is not searched through."""
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if looks_like_image(entry.name):
                    return []
                if not entry.name.startswith(".") and entry.is_dir():
                    found.append(Path(entry.path))
    except OSError:
        return []
    return sorted(found)


def _info(folder: Path) -> dict[str, Any]:
    """What TFDS says of a data set; raises InputError unless it holds what is read of it."""
    try:
        info = json.loads((folder / INFO).read_text())
        if not all(isinstance(named["name"], str) for named in (info, *info["splits"])):
            raise TypeError("a name is no text")
        return info | {"shards": {one["name"]: [*map(int, one.get("shardLengths", ()))] for one in info["splits"]}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / INFO} cannot be read ({error}): copy the data set again.") from error


def _name(folder: Path) -> str:
    return str(_info(folder).get("name", ""))


def _split_names(folder: Path, prefix: str) -> dict[str, str]:
    """TFDS's name of each split, by the usual one; for `church-train` that is `train` if no other split ends so."""
    names = [one["name"] for one in _info(folder).get("splits", ()) if one["name"].startswith(prefix)]
    short = {name: canonical(name.removeprefix(prefix).rsplit("-", 1)[-1]) for name in names}
    unique = len(set(short.values())) == len(names) and all(name in SPLITS for name in short.values())
    found = {short[name] if unique else canonical(name): name for name in names}
    return dict(sorted(found.items(), key=lambda pair: (pair[0] not in SPLITS, [*SPLITS, pair[0]].index(pair[0]))))


def _shard_names(info: dict[str, Any], split: dict[str, Any], count: int) -> Iterator[str]:
    template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    for number in range(count):
        index, of = f"{number:05}", f"{count:05}"
        words = {"DATASET": info["name"], "SPLIT": split["name"], "FILEFORMAT": info.get("fileFormat") or "tfrecord"}
        words |= {"SHARD_INDEX": index, "NUM_SHARDS": of, "SHARD_X_OF_Y": f"{index}-of-{of}"}
        yield re.sub(r"\{(\w+)\}", lambda word, words=words: words.get(word[1], word[0]), template)


def _count_classes(folder: Path) -> int:
    """From features.json; 0 if there is no label."""
    try:
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        return int(features["label"]["classLabel"]["numClasses"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


class ExampleRecords:
    """Examples with `image`, and maybe `label` and `file_name`, in the shards of a split."""

    def __init__(self, data: Tfds, split: str, files: list[Path], lengths: list[int], form: str) -> None:
        self.class_names = data.class_names
        self.left_out: list[LeftOut] = []
        self.warnings: list[str] = []
        self._data, self._split, self._files = data, split, files
        self._ends = np.cumsum(lengths)
        if form == "array_record":
            self._fetch = _array_records(files)
        elif form == "tfrecord":
            self._index = remembered("tfrecord", files, lambda: _index(files, lengths))
            self._fetch = self._fetch_tfrecord
        else:
            raise InputError(f"{files[0].parent} is in the format {form}, but tfrecord and array_record are read.")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def name(self, index: int) -> str:
        """The file and the number of the record in it."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return f"{self._files[shard].name}:{index - (int(self._ends[shard - 1]) if shard else 0)}"

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The image file's bytes and the label; raises BadImage if the record is damaged."""
        try:
            example = parse_example(self._fetch(index))
        except (ValueError, OSError) as error:
            raise BadImage("corrupt", f"record: {error}") from error
        image, label = example.get("image"), example.get("label", 0)
        if not isinstance(image, bytes):
            raise BadImage("corrupt", "record: no image")
        if self.class_names and not (isinstance(label, int) and 0 <= label < len(self.class_names)):
            raise InputError(
                f"split {self._split!r} of {self._data.path or self._data.names[0]} has no labels "
                f"({self.name(index)} has {label}): use another split, or --data.labels 0."
            )
        return image, label if self.class_names else 0

    def _fetch_tfrecord(self, index: int) -> bytes:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        offset, size = (int(number) for number in self._index[:, index])
        # Opened for each record: a thousand shards are more than a process may hold open.
        with self._files[shard].open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise ValueError("cut short")
        return data


def _index(files: list[Path], lengths: list[int]) -> np.ndarray:
    parts = []
    for file, length in zip(files, lengths, strict=True):
        parts.append(index_file(file))
        if parts[-1].shape[1] != length:
            raise InputError(
                f"{file} holds {parts[-1].shape[1]} records, but {INFO} says {length}: it is cut short, or of another "
                f"version; copy it again."
            )
    return np.concatenate([np.empty((2, 0), np.int64), *parts], axis=1)


def _array_records(files: list[Path]) -> Any:
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError as error:
        raise InputError(f"{files[0]} needs the package array_record, which is not here for this system.") from error
    try:
        source = ArrayRecordDataSource([str(file) for file in files])
    except Exception as error:  # It raises what its C++ raises.
        raise InputError(f"{files[0].parent} cannot be read ({error}): copy the data set again.") from error

    def fetch(index: int) -> bytes:
        try:
            return source[index]
        except Exception as error:
            raise ValueError(error) from error

    return fetch


IMAGENET256 = Tfds(names=("imagenet2012",), size=256, flip=True)
"""As the original's `imagenet256`."""
CELEBAHQ256 = Tfds(names=("celebahq256",), size=256, flip=True)
"""As the original's: stored at 256x256, so that nothing is cropped or resized."""
LSUNCHURCH = Tfds(names=("lsunc", "lsun"), prefix="church-", size=256)
"""As the original's, whose builder is called lsun but whose loader reads lsunc."""
