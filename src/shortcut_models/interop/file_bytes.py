"""The bytes of a file that is not trusted, where they lie, and one sentence for whatever is wrong with it."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shortcut_models.errors import InputError
from shortcut_models.interop.pickle_reader import shown


def bytes_of(file: Path) -> memoryview:
    """A read-only view of a regular file; only the pages that are looked at are read.

    Raises InputError for what is no regular file (a link to a device never ends) or cannot be opened.
    """
    try:
        if not file.is_file():
            raise InputError(f"{shown(str(file), 200)} is no file: give the file or folder that holds the weights.")
        with file.open("rb") as stream:
            if not file.stat().st_size:
                raise InputError(f"{shown(str(file), 200)} is empty: download or copy it again.")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or "no such path"
        raise InputError(f"{shown(str(file), 200)} cannot be opened: {reason}.") from None


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Tells whatever goes wrong inside, in one sentence that begins with the file's name."""
    try:
        yield
    except InputError as error:
        said = str(error).rstrip(".")
        # What names the file already is whole; nested readers need no second introduction.
        raise InputError(
            f"{said}." if shown(str(file), 200) in said else f"{_name(file)} cannot be read: {said}."
        ) from None
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # What is damaged enough can raise anything, and its text may be the file's own.
        raise InputError(f"{_name(file)} is damaged, or no weights at all ({type(error).__name__}).") from None


def _name(file: Path) -> str:
    return shown(str(file), 200)
