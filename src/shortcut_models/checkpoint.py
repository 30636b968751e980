"""Saving and restoring a training state: the one module that knows Orbax.

Each save is a folder named after its step, written aside and then renamed, so that a crash at any
moment leaves the last whole one. The parts are separate, so that sampling reads only its weights.

Orbax writes; what it wrote is read with TensorStore, which it is made of: a part is an OCDBT database
of Zarr arrays, each named by its path in the tree. Orbax's own reader opens a folder as a writer does,
and when an array cannot be read, those that it was still reading fail later, with tracebacks that
nobody can catch. Reading here creates nothing, starts no Python thread and says which file is at fault.
"""

import errno
import glob
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from shortcut_models.errors import InputError

Parts = dict[str, Any]
"""Pytrees of arrays by name, or of their shapes and shardings."""

SCHEMES = ("gs", "s3", "az", "hf")
"""Top-level folders that Orbax takes for addresses of services."""


class Checkpoints:
    """Writes the checkpoints of one run, and keeps the newest `keep` of them; use as a context manager.

    For the process that trains alone: what a killed one left half-written is removed. Raises
    InputError for a folder that Orbax could not write to, and OSError when a save fails.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder = folder.absolute()
        check_path(self._folder)
        context = _context()
        self._saving: tuple[int, Any] | None = None
        """Step and outcome of the save in progress."""
        with _oserror(self._folder):
            self._orbax = ocp.training.Checkpointer(
                context.file_options.path_class(str(self._folder)),
                context=context,
                save_decision_policy=_any(ocp.training.save_decision_policies.FixedIntervalPolicy(1)),
                preservation_policy=_any(ocp.training.preservation_policies.LatestN(keep)),
                cleanup_tmp_directories=jax.process_index() == 0,
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            return  # Stopped at once: what is being written does not count until it is whole.
        try:
            self.wait()
        except OSError:
            if kind is None:
                raise  # Otherwise the first failure is the one to tell.
        finally:
            with suppress(Exception):  # It would raise once more what `wait` has raised.
                self._orbax.close()

    def save(self, step: int, parts: Parts) -> None:
        """Copy the parts, pytrees of arrays, off the device and write them in the background.

        An error of an earlier save is raised here or by `wait`, never swallowed.
        """
        self.wait()
        if not self._folder.is_dir():  # Or Orbax would make it again, with nothing else of the run in it.
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._folder))
        with _oserror(self._folder / str(step)):
            self._saving = step, self._orbax.save_checkpointables_async(step, parts)

    def wait(self) -> None:
        """Return when everything saved so far is safely on disk."""
        if self._saving is None:
            return
        (step, outcome), self._saving = self._saving, None
        with _oserror(self._folder / str(step)):
            outcome.result()
        if not (self._folder / str(step)).is_dir():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._folder / str(step)))

    def load(self, step: int, shapes: Parts) -> Parts:
        """Read the parts named in `shapes`, placed by the shardings in there; raises InputError if that fails."""
        with _told(self._folder / str(step)):
            return _read(self._folder / str(step), shapes)


def newest(folder: Path) -> int | None:
    """Step of the newest whole checkpoint in a folder, or None; changes nothing."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names, not paths.
    except (FileNotFoundError, NotADirectoryError):
        return None
    # What is being written has another name until it is whole.
    steps = [int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]*", name) and (folder / name).is_dir()]
    return max(steps, default=None)


def load_newest(folder: Path, shapes: Parts) -> tuple[int, Parts] | None:
    """Step and parts of the newest whole checkpoint in a folder, or None if there is none; changes nothing.

    The training that writes there may remove a checkpoint while it is read: then the newest is looked
    for again. Raises InputError as `Checkpoints.load` does.
    """
    while (step := newest(folder)) is not None:
        try:
            with _told(folder / str(step)):
                return step, _read(folder.absolute() / str(step), shapes)
        except InputError:
            if newest(folder) == step:
                raise
    return None


def check_path(folder: Path) -> None:
    """Raise InputError for the few folders that the file system allows but checkpoints cannot be written to."""
    path = str(folder.absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"checkpoints cannot be written to {path.encode('utf-8', 'replace').decode()}, whose name is not UTF-8: "
            "choose another --run-dir."
        ) from None
    if "\\" in path:
        raise InputError(f"checkpoints cannot be written to {path}, which holds a backslash: choose another --run-dir.")
    if path.split("/")[1] in SCHEMES:
        raise InputError(
            f"checkpoints cannot be written to {path}, because /{path.split('/')[1]} is taken for the address of a "
            "service: choose another --run-dir, such as a symbolic link to it."
        )
    if "gs:" in path.split("/"):  # Orbax doubles the slash behind it.
        raise InputError(
            f"checkpoints cannot be written to {path}, because gs: is taken for the address of a service: choose "
            "another --run-dir."
        )


def agree(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(jax.numpy.asarray(flag)).any())


# --- Reading


def _read(checkpoint: Path, shapes: Parts) -> Parts:
    context = ts.Context({"cache_pool": {"total_bytes_limit": 2**27}})  # So that the tables are read once.
    return {name: _read_part(checkpoint / name, tree, context) for name, tree in shapes.items()}


def _read_part(part: Path, tree: Any, context: ts.Context) -> Any:
    """The arrays of one part. Raises OSError or ValueError, see `_told`."""
    os.listdir(part)  # noqa: PTH208 - raises what is wrong with the folder, where TensorStore finds no arrays.
    # TensorStore takes no "..", which behind a link only the system can follow.
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{part.resolve()}/"}}
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    wanted = {".".join(map(_name, path)): leaf for path, leaf in leaves}
    keys = ts.KvStore.open(store, context=context).result().list().result()
    there = {key.decode().removesuffix("/zarr.json") for key in keys if key.endswith(b"/zarr.json")}
    if not there and wanted:
        raise FileNotFoundError(errno.ENOENT, "it holds no arrays", str(part))
    odd = sorted(there ^ wanted.keys())
    if odd:
        raise _OtherArraysError(f"{odd[0]} is {'only there' if odd[0] in there else 'not there'}")
    specs = [{"driver": "zarr3", "kvstore": {**store, "path": f"{name}/"}, **MISSING} for name in wanted]
    opening = [ts.open(spec, context=context, open=True, read=True) for spec in specs]
    arrays = [future.result() for future in opening]
    for name, array, leaf in zip(wanted, arrays, wanted.values(), strict=True):
        if array.shape != leaf.shape:
            raise _OtherArraysError(f"{name} is {array.shape} there, {leaf.shape} here")
    return structure.unflatten([_place(array, leaf) for array, leaf in zip(arrays, wanted.values(), strict=True)])


MISSING: dict[str, Any] = {"fill_missing_data_reads": False}
"""A piece of an array that is not there is damage, not zeros."""


def _place(array: ts.TensorStore, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """The array on its devices; every process reads its own share."""
    cast = lambda index: np.asarray(array[index].read().result()).astype(leaf.dtype, copy=False)  # noqa: E731
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, cast)


def _name(key: Any) -> str:
    """A step of an array's path, as Orbax writes it: the key, the index or the field."""
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))


class _OtherArraysError(ValueError):
    """A checkpoint of another network or optimiser."""


@contextmanager
def _told(checkpoint: Path) -> Iterator[None]:
    """Raise what goes wrong in reading as an InputError: only what was read and found damaged is to be deleted."""
    try:
        yield
    except _OtherArraysError as error:
        raise InputError(
            f"checkpoint {checkpoint} holds other arrays than its run.json describes ({error}): "
            "restore the run.json that it was trained with."
        ) from error
    except (OSError, ValueError) as error:
        code = _code(error)
        if code in (errno.EACCES, errno.EPERM):
            raise InputError(
                f"checkpoint {checkpoint} may not be read ({_cause(error)}): check its owner and permissions."
            ) from error
        if code not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise InputError(
                f"checkpoint {checkpoint} cannot be read now ({_cause(error)}): check the disk, network or limit that "
                "this names, and run the same command again."
            ) from error
        raise InputError(
            f"checkpoint {checkpoint} is damaged ({_cause(error)}): delete that folder to go on from the one before, "
            "or start over in another run folder."
        ) from error


# --- Writing


def _context() -> Any:
    """Orbax's settings for our folders."""
    context = ocp.Context()
    plain: Any = type(context.file_options.path_class("/"))

    class Literal(plain):
        """A path of Orbax's that takes no part of a folder's name for a pattern.

        Orbax finds the pieces that it has to merge by a pattern below the folder. Where it finds none
        because of a "[" in the name, it goes on without a word, and nothing can ever be read.
        """

        def glob(self, pattern: str) -> Iterator["Literal"]:
            return (type(self)(path) for path in glob.glob(f"{glob.escape(str(self))}/{pattern}"))  # noqa: PTH207

    context.file_options.path_class = Literal
    # In the background, a folder that cannot be made leaves threads that wait for it for twenty minutes.
    context.async_options.create_directories_asynchronously = False
    return context


@contextmanager
def _oserror(path: Path) -> Iterator[None]:
    """Raise what goes wrong in writing as an OSError that names the checkpoint."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        code = _code(error)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _any(policy: Any) -> Any:
    """Orbax's policies, whose types it does not export."""
    return policy


# --- What went wrong


def _code(error: BaseException) -> int | None:
    """The system's number for the failure behind an error, if it was one of the system's."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError):
        return error.errno or errno.ENOENT
    told = re.search(r"os_error_code='(\d+)'", str(error))
    return int(told[1]) if told else None


def _cause(error: BaseException) -> str:
    """The innermost cause, in one line: TensorStore wraps it in one sentence after another."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    line = (re.sub(r" \[\w+(\[\d+\])?='.*", "", str(error), flags=re.DOTALL).strip().splitlines() or [""])[0]
    inner = re.split(r"(?<=[\"'/)]): (?=Error |Failed |Requested |Existing )", line)
    return (inner[-1] or type(error).__name__)[:300]


class _Chatter(logging.Filter):
    """Drops from Orbax's log what is no warning, and the tracebacks of failures that are raised to us as well."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING and not record.exc_info


logging.getLogger("absl").addFilter(_Chatter())
