"""Images of Hugging Face datasets on disk: what `save_to_disk` wrote, or parquet files as the hub has them.

Read by pyarrow, without the package `datasets`; images are decoded by us, so that EXIF orientation
is ignored as everywhere here.
"""

import json
import os
import re
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from shortcut_models.data.decode import BadImage, check_bytes
from shortcut_models.data.images import Images, LeftOut
from shortcut_models.data.layout import SPLITS, canonical, numbered
from shortcut_models.data.parquet_files import check_all_there, is_partial, parquet_folders, parquet_splits
from shortcut_models.errors import InputError

LABELS = ("label", "labels")
"""What columns of whole numbers are called that are taken for labels unasked."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Images):
    """A folder of `save_to_disk`, or of parquet files, which are read in order: by `shortcut prepare` alone."""

    image: str = ""
    """Column of the images; by default the only one of that kind."""
    label: str = ""
    """Column of the labels; by default the only one of that kind."""

    @classmethod
    def recognise(cls, place: str) -> list[Self]:
        """By dataset_dict.json, state.json, or the suffix .parquet."""
        return [cls(path=place)] if _arrow_splits(Path(place)) or parquet_folders(Path(place)) else []

    @cached_property
    def _arrow(self) -> dict[str, Path]:
        return _arrow_splits(Path(self.path))

    @cached_property
    def _parquet(self) -> dict[str, list[Path]]:
        return parquet_splits(Path(self.path))

    @cached_property
    def _records(self) -> dict[str, "TableRecords"]:
        return {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of the data set, under their usual names."""
        found = self._arrow or self._parquet
        if not found:
            raise InputError(f"{self.path} holds neither what save_to_disk writes nor parquet files.")
        return tuple(sorted(found, key=lambda name: [*SPLITS, name].index(name)))

    def records(self, split: str) -> "TableRecords":
        """The rows of a split, in order."""
        split = canonical(split)
        self.check_split(split)
        if split not in self._records:
            if self._arrow:
                self._records[split] = ArrowRecords(self, self._arrow[split])
            else:
                self._records[split] = ParquetRecords(self, self._parquet[split])
        return self._records[split]

    def fingerprint(self) -> Iterable[str]:
        """Names and sizes of the files."""
        for split in self.splits:
            # `datasets` leaves what it computes beside the files of a data set.
            for file in self._parquet.get(split) or _state(self._arrow[split])[1]:
                yield f"{split} {file.name} {file.stat().st_size}"


def _arrow_splits(path: Path) -> dict[str, Path]:
    if (path / "state.json").is_file():
        return {"train": path}
    if not (path / "dataset_dict.json").is_file():
        return {}
    try:
        names = json.loads((path / "dataset_dict.json").read_text())["splits"]
        return {canonical(name): path / name for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path / 'dataset_dict.json'} is damaged: save the data set again.") from error


def _state(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """What `save_to_disk` says of a split, and its files; raises InputError if they are not there."""
    at = folder
    try:
        state = json.loads((folder / "state.json").read_text())
        files = [folder / file["filename"] for file in state["_data_files"]]
        for at in files:
            at.stat()
        return state, files
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{at} cannot be read ({error}): save the data set again.") from error


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet  # pyrefly: ignore[missing-import]  # Large, and needed here only.
    except ImportError:
        raise InputError(f"{path} needs the package pyarrow: pip install 'shortcut-models[hf]'.") from None
    return pyarrow


class TableRecords(ABC):
    """Rows of a table with a column of images and maybe one of labels."""

    left_out: list[LeftOut]
    warnings: list[str]

    def __init__(self, data: HuggingFace, features: dict[str, Any]) -> None:
        self.left_out, self.warnings = [], []
        self._beside = Path(data.path) if Path(data.path).is_dir() else Path(data.path).parent
        self.image = _column(data, features, "Image", data.image, "image")
        self.label = _column(data, features, "ClassLabel", data.label, "label", needed=False)
        self.class_names: tuple[str, ...] = ()
        about = features[self.label] if self.label and data.labels else {}
        if names := about.get("names"):
            self.class_names = tuple(map(str, names))
        elif count := about.get("num_classes"):
            self.class_names = numbered([int(count) - 1], data.path)
        elif about:
            self.class_names = numbered(self.bounds(), f"column {self.label!r} of {data.path}")

    @abstractmethod
    def bounds(self) -> list[int]:
        """The smallest and the largest label; [] if there is none."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> tuple[Any, Any]:
        """The image, {"bytes", "path"}, and the label of a row."""

    def name(self, index: int) -> str:
        """The number of the row, and the image's path if one is kept."""
        path = (self.row(index)[0] or {}).get("path")
        return f"row {index}" + (f" ({path})" if path else "")

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The image file's bytes and the label; raises BadImage if there are none, InputError for a wrong label."""
        image, label = self.row(index)
        if self.class_names and not (isinstance(label, int) and 0 <= label < len(self.class_names)):
            raise InputError(f"row {index} has label {label}: use another split, or --data.labels 0.")
        if image is not None and image.get("bytes") is None and image.get("path"):
            return _read_file(self._beside / image["path"]), label if self.class_names else 0
        if image is None or image.get("bytes") is None:
            raise BadImage("missing", "no image in this row")
        return image["bytes"], label if self.class_names else 0


def _read_file(path: Path) -> bytes:
    """A file that a row names in place of an image; raises BadImage unless it is a regular one of an image's size."""
    try:
        # Whoever made the data chose the path, and a device or a pipe would never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadImage("unreadable", f"{path} is no regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            check_bytes(size)
            return file.read(size)
    except OSError as error:
        raise BadImage("missing", error.strerror or "not readable") from error
    except ValueError as error:  # A path with a zero byte.
        raise BadImage("missing", "no path that a file can have") from error


def _column(
    data: HuggingFace, features: dict[str, Any], kind: str, wanted: str, option: str, needed: bool = True
) -> str:
    """The column that was asked for, or the only one of its kind; raises InputError where that is not clear."""
    if wanted:
        if wanted not in features:
            raise InputError(f"{data.path} has no column {wanted!r}: it has {', '.join(features)}.")
        if not _is_of_kind(features[wanted], kind):
            raise InputError(f"column {wanted!r} of {data.path} is not of type {kind}: choose another --data.{option}.")
        return wanted
    fit = [name for name, about in features.items() if about.get("_type") == kind]
    if kind == "ClassLabel" and not fit:  # Whoever writes parquet without `datasets` has no other labels than numbers.
        fit = [name for name in LABELS if _is_of_kind(features.get(name), kind)]
    if len(fit) == 1 or (not fit and not needed):
        return fit[0] if fit else ""
    raise InputError(
        f"{data.path} has {len(fit)} columns of type {kind} among {', '.join(features)}: name one by --data.{option}."
    )


def _is_of_kind(about: Any, kind: str) -> bool:
    """Whether a column is of this kind; whole numbers do for labels."""
    about = about if isinstance(about, dict) else {}
    is_whole = about.get("_type") == "Value" and re.fullmatch(r"u?int\d+", str(about.get("dtype")))
    return about.get("_type") == kind or (kind == "ClassLabel" and bool(is_whole))


class ArrowRecords(TableRecords):
    """What `save_to_disk` wrote: Arrow streams, mapped, so that any row is quick."""

    def __init__(self, data: HuggingFace, folder: Path) -> None:
        arrow, at = _pyarrow(folder), folder
        tables = []
        try:
            state, files = _state(folder)
            features = json.loads((folder / "dataset_info.json").read_text())["features"]
            if state.get("_indices_data_files"):
                raise InputError(
                    f"{folder} was saved with a selection of rows apart: flatten_indices() and save it again."
                )
            for at in files:
                tables.append(arrow.ipc.open_stream(arrow.memory_map(str(at))).read_all())
            table = arrow.concat_tables(tables)
            at, self._table = folder, table
            super().__init__(data, features)
            self._images = table.column(self.image)
            self._labels = table.column(self.label) if self.label else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{at} cannot be read ({error}): save the data set again.") from error

    def bounds(self) -> list[int]:
        """From the mapped column."""
        return _bounds([self._table.column(self.label)])

    def __len__(self) -> int:
        return len(self._images)

    def row(self, index: int) -> tuple[Any, Any]:
        """Straight from the mapped file."""
        return self._images[index].as_py(), self._labels[index].as_py() if self._labels is not None else 0


class ParquetRecords(TableRecords):
    """Parquet files: one row costs its whole group, of some 100 MB, so that they are read in order."""

    in_order = True

    def __init__(self, data: HuggingFace, files: list[Path]) -> None:
        if not Path(data.path).is_file():  # Which is then all that is wanted.
            check_all_there(files)
        arrow, at = _pyarrow(files[0]), files[0]
        self._files: list[Any] = []
        try:
            for at in files:
                self._files.append(arrow.parquet.ParquetFile(at))
            kept = self._files[0].schema_arrow.metadata or {}
            features = json.loads(kept.get(b"huggingface", b"{}")).get("info", {}).get("features")
            super().__init__(data, features or _guess(self._files[0].schema_arrow))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{at} cannot be read ({error}): copy it again.") from error
        if any(map(is_partial, files)):
            self.warnings.append(f"{files[0].parent.name} holds the first part alone: the hub converted no more of it")
        groups = [(file, group) for file in self._files for group in range(file.num_row_groups)]
        self._groups = groups
        self._ends = np.cumsum([file.metadata.row_group(group).num_rows for file, group in groups])
        self._path = data.path
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def bounds(self) -> list[int]:
        """From that column alone of all files."""
        return _bounds([file.read(columns=[self.label]).column(self.label) for file in self._files])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def row(self, index: int) -> tuple[Any, Any]:
        """From the group that was read last, or the one before it, or a new one."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        with self._lock:
            if number not in self._kept:
                while len(self._kept) > 1:
                    self._kept.pop(next(iter(self._kept)))
                file, group = self._groups[number]
                columns = [name for name in (self.image, self.label) if name]
                try:
                    table = file.read_row_group(group, columns=columns)
                except (OSError, ValueError, KeyError) as error:
                    raise InputError(
                        f"{self._path} cannot be read after row {index} ({error}): copy its parquet files again."
                    ) from error
                self._kept[number] = table.column(self.image), table.column(self.label) if self.label else None
            images, labels = self._kept[number]
        at = index - (int(self._ends[number - 1]) if number else 0)
        return images[at].as_py(), labels[at].as_py() if labels is not None else 0


def _bounds(columns: Iterable[Any]) -> list[int]:
    found = {value for column in columns for value in column.unique().to_pylist()} - {None}
    return [min(found), max(found)] if found else []


def _guess(schema: Any) -> dict[str, Any]:
    """Features of parquet files that another tool wrote: structs with bytes are images."""
    names = [field.name for field in schema if hasattr(field.type, "get_field_index") and field.type.num_fields]
    images = {name for name in names if schema.field(name).type.get_field_index("bytes") >= 0}
    return {
        field.name: {"_type": "Image"} if field.name in images else {"_type": "Value", "dtype": str(field.type)}
        for field in schema
    }
