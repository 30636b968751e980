"""Where the parquet files of a data set lie, as the Hugging Face hub has them, and whether all are there."""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from shortcut_models.data.layout import SPLITS, canonical, is_ignored
from shortcut_models.errors import InputError

PARTIAL = "partial-"
"""How the hub calls the folder of a split of which it converted the first part alone."""
LOOKED_AT = 100
"""Entries of a folder that tell whether it holds parquet files: the folder of a class may hold a million images."""
NAMED = 5
"""Missing files that a message names."""
FIRST_YEAR = 1000
"""Names that are all numbers count the files from 0000, unless each may be that of a year."""

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?\.parquet")
_NUMBER = re.compile(r"\d{4,}\.parquet")


def parquet_splits(path: Path) -> dict[str, list[Path]]:
    """The files of each split: by what their names begin with, as train-00000-of-00002.parquet, or by their folder.

    Raises InputError if `path` holds several configurations.
    """
    folders = parquet_folders(path)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise InputError(f"{path} holds several configurations, {names}: name the inner folder, such as {folders[0]}.")
    files = sorted(file for folder in folders for file in _files(folder))
    named = {file: _split(file) for file in files}
    # Beside splits of the usual names, another is one of its own, such as `extra`; else it is just a name.
    usual = not SPLITS.keys().isdisjoint(named.values())
    found: dict[str, list[Path]] = {}
    for file, name in named.items():
        found.setdefault(name if name in SPLITS or (usual and name) else "train", []).append(file)
    return found


def parquet_folders(path: Path) -> list[Path]:
    """A file itself, or the folder of each configuration: this one if it holds parquet files, else those in it."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    if next(_files(path), None):
        return [path]
    return [folder for folder in _below(path) if _holds_parquet(folder)]


def _files(path: Path) -> Iterator[Path]:
    """Parquet files of one configuration, in the folders that have them by custom: others may be large."""
    if path.is_file():
        yield path
        return
    splits = [prefix + name for names in SPLITS.values() for name in names for prefix in ("", PARTIAL)]
    for folder in (path, path / "data"):
        for inner in (folder, *(folder / split for split in splits)):
            yield from inner.glob("*.parquet")


def _below(path: Path) -> list[Path]:
    """Folders in a folder."""
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_ignored(entry.name))
    except OSError:
        return []


def _holds_parquet(folder: Path, deep: bool = True) -> bool:
    """Whether there are parquet files among a folder's first entries, or in a folder there that is called a split."""
    try:
        with os.scandir(folder) as entries:
            first = list(islice(entries, LOOKED_AT))
    except OSError:
        return False
    if any(entry.name.endswith(".parquet") for entry in first):
        return True
    splits = [Path(entry.path) for entry in first if canonical(entry.name.removeprefix(PARTIAL)) in SPLITS]
    return deep and any(_holds_parquet(split, deep=False) for split in splits)


def is_partial(file: Path) -> bool:
    """Whether the hub has more of this file's split than the files."""
    return file.parent.name.startswith(PARTIAL)


def _split(file: Path) -> str:
    """The split that a file's name tells, by the usual name or its own, or else its folder's; "" if neither does."""
    shard = _SHARD.fullmatch(file.name)
    own = canonical(file.name.split("-")[0].split(".")[0])
    above = canonical(file.parent.name.removeprefix(PARTIAL))
    usual = next((name for name in (own, above) if name in SPLITS), "")
    return usual or (shard["stem"] if shard else "")


def check_all_there(files: list[Path]) -> None:
    """Raise InputError that names what is missing of the files of a split, if their names say that there are more."""
    sets: dict[tuple[Path, str], dict[int, set[int]]] = {}
    plain: dict[Path, set[int]] = {}
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            counts = sets.setdefault((file.parent, shard["stem"]), {})
            counts.setdefault(int(shard["count"]), set()).add(int(shard["number"]))
        elif _NUMBER.fullmatch(file.name):
            plain.setdefault(file.parent, set()).add(int(file.stem))
    for (folder, stem), counts in sets.items():
        for count, numbers in counts.items():
            _check_numbers(folder, (f"{stem}-", f"-of-{count:05}.parquet"), 5, numbers, count)
        if len(counts) > 1:
            ways = " and ".join(f"in {count}" for count in sorted(counts))
            raise InputError(f"{folder} holds {stem} twice, {ways} parquet files: keep one set of them.")
    for folder, numbers in plain.items():
        if min(numbers) < FIRST_YEAR:
            _check_numbers(folder, ("", ".parquet"), 4, numbers, max(numbers) + 1)


def _check_numbers(folder: Path, around: tuple[str, str], digits: int, numbers: set[int], count: int) -> None:
    """Raise InputError unless all numbers below the count are there; `around` is what the names have around them."""
    first = islice((number for number in range(count) if number not in numbers), NAMED)
    missing = [f"{around[0]}{number:0{digits}}{around[1]}" for number in first]
    if missing:
        more = count - len(numbers) - len(missing)
        listed = ", ".join(missing) + (f" and {more} more" if more > 0 else "")
        raise InputError(
            f"{folder} lacks {listed}: the data set has {count} parquet files there, and was copied in part; copy it "
            f"again."
        )
