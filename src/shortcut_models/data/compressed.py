"""Tar files that are compressed, in which no image can be read in place: found, and refused."""

from pathlib import Path
from typing import NoReturn

from shortcut_models.data.layout import SPLITS
from shortcut_models.errors import InputError

TOOLS = {"gz": ("gzip", "gunzip"), "bz2": ("bzip2", "bunzip2"), "xz": ("xz", "unxz"), "zst": ("zstd", "unzstd")}
"""By the end of a file's name, what compresses it and what unpacks it; .tgz is short for .tar.gz, and so on."""
SHORT = {"tgz": "gz", "tbz2": "bz2", "txz": "xz", "tzst": "zst"}


def compressed_tars(path: Path) -> list[Path]:
    """This one, or those in a folder and in its folders that are called as splits."""
    if not path.is_dir():
        return [path] if _ending(path) else []
    folders = (path, *(path / name for names in SPLITS.values() for name in names))
    return sorted(file for folder in folders for file in folder.glob("*.t*") if _ending(file))


def _ending(file: Path) -> str:
    """The key of `TOOLS` that a tar file's name tells; "" for another name."""
    *_, before, last = ("", "", *file.name.lower().split("."))
    return SHORT.get(last, last if before == "tar" and last in TOOLS else "")


def refuse_compressed(file: Path) -> NoReturn:
    """Raise InputError, which says how to unpack it: by gunzip, unless its name says otherwise."""
    ending = _ending(file)
    packed_by, command = TOOLS[ending or "gz"]
    # It takes no file whose name does not say that it is compressed.
    how = f"{command} {file.name}" if ending else f"mv {file.name} {file.name}.gz && gunzip {file.name}.gz"
    raise InputError(
        f"{file} is compressed by {packed_by}: unpack it first (`{how}`) or move it away, since images are read in "
        f"place."
    )
