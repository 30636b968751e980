"""Files and folders: written whole or not at all, held by one process, and told plainly when they fail."""

import errno
import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from shortcut_models.errors import InputError

ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "check its owner and permissions, or choose another path",
    errno.EPERM: "check its owner and permissions, or choose another path",
    errno.EROFS: "choose a path on a file system that can be written",
    errno.ENOENT: "check the path: it is not there, or was moved or removed meanwhile",
    errno.ENOTDIR: "check the path: what should be a folder is a file",
    errno.EISDIR: "check the path: what should be a file is a folder",
    errno.EEXIST: "choose another path, or remove what is there",
    errno.ENOTEMPTY: "choose another path, or empty the folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs: this machine has too many files open",
    errno.EIO: "check the disk or the network that holds it",
    errno.ESTALE: "check the network that holds it, and run the same command again",
    errno.EPIPE: "the program that reads the output has ended, so that the rest of it is lost",
}
"""What can be done about the failures of files that a user can mend."""

WEIGHT_FILES = (
    *(".bin", ".ckpt", ".gguf", ".h5", ".npz", ".onnx", ".pb", ".pkl", ".pt", ".pth"),
    *(".safetensors", ".stablehlo", ".tflite", ".zip"),
)
"""Endings of files that hold weights: a folder of such a name would not be what somebody meant."""

NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What a file system without locks answers."""


def check_local(name: str, place: str) -> None:
    """Raise InputError for a place on a remote store, such as gs://, of which no path can be made."""
    if "://" in place:
        raise InputError(
            f"{name} {place} lies on a remote store, which is not read or written: copy it to this machine, or mount "
            "it."
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end takes the place of `path`, or on an error nothing does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, so that every name that the file system allows for `path` works.
    aside = path.with_name(f".aside-{secrets.token_hex(6)}")
    with naming(path, instead_of=aside):
        try:
            yield aside
            with aside.open("rb") as file:
                os.fsync(file.fileno())  # Or a crash of the machine could leave the new name with no content.
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def absolute(path: str | Path) -> str:
    """The path as it is to be stored: independent of the working directory, `~` expanded, links kept."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - pathlib keeps "..", which reads badly.


def find(stored: str, near: Path) -> Path:
    """What a stored path means now.

    An absolute one is itself. Relative ones, which earlier versions stored, are looked for from the
    working directory and then from the folder `near`, which they were stored in, and those above it.
    """
    here = Path(absolute(near))
    candidates = [place / Path(stored).expanduser() for place in (Path.cwd(), here, *here.parents)]
    return next((path for path in candidates if path.exists()), candidates[0])


@contextmanager
def hold(path: Path, wait: bool = True) -> Iterator[bool]:
    """Keep other processes out; yields whether we are in.

    The file is locked, tells who holds it (see `holder`), and goes when it is released. A lock dies
    with its process, so none is ever stale, although a killed process leaves the file.
    Raises OSError where files cannot be written or locked.
    """
    file = _lock(path, wait)
    if file is None:
        yield False
        return
    try:
        about = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(about).encode(), 0)
        yield True
    finally:
        with suppress(OSError):  # The folder may be gone.
            path.unlink()
        os.close(file)


def lock(file: int, path: Path, how: int) -> bool:
    """Lock an open file as `fcntl.flock` does; False if another process has it.

    Some file systems of clusters have no locks. There it goes on without, and says so.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _say_no_locks(path.parent, error.errno)
    return True


@lru_cache
def _say_no_locks(folder: Path, code: int) -> None:
    """Once for every folder, in which many files may be locked one after the other."""
    print(
        f"{folder}: this file system has no locks ({os.strerror(code)}), so that nothing keeps a second command out: "
        "start none meanwhile.",
        file=sys.stderr,
    )


def holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        about = json.loads(path.read_text())
        return f"process {about['process']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # It is just beginning, or ending.


@contextmanager
def naming(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """Have a failure name the file, where the system does not say which it was, or it was `instead_of` or in there."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if named is None or (instead_of and instead_of in (Path(str(named)), Path(str(named)).parent)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def explained(kept: str = "") -> Iterator[None]:
    """Raise the failures of files that a user can mend as an InputError of one sentence.

    `kept` says what is safe. Anything else, a mistake of the program's, goes through as it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        raise InputError(explain(error, kept)) from error


def explain(error: OSError, kept: str = "") -> str:
    """One sentence about a failure: where, what, what is kept, what to do."""
    where = error.filename2 or error.filename
    what = os.strerror(error.errno) if error.errno else str(error)
    what = what[:1].lower() + what[1:]
    advice = ADVICE.get(error.errno or 0, "")
    where = os.fsdecode(where) if isinstance(where, str | bytes | os.PathLike) else "the output"
    return f"{where}: {what}{f' ({kept})' * bool(kept)}{f': {advice}' * bool(advice)}."


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the ones that were not there, the innermost first."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove folders as far as they are empty: what `make_folder` made, when nothing came of it."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _lock(path: Path, wait: bool) -> int | None:
    """An open, locked file, or None if another process holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = lock(file, path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(file)
            raise
        if not locked:
            os.close(file)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # Who held it before removed it after we had opened it: another may lock a new one.


def names_weights(path: Path) -> bool:
    """Whether it is named like a file of weights, of any program."""
    return path.suffix.lower() in WEIGHT_FILES
