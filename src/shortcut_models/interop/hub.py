"""Finding a file of weights: where the user says, else in the hub's cache, else on the hub."""

import os
from pathlib import Path

from shortcut_models.errors import InputError


def find(
    repository: str,
    filename: str,
    *,
    path: str | Path | None = None,
    variable: str | None = None,
    flag: str | None = None,
    revision: str | None = None,
    download: bool = True,
) -> Path:
    """The file `filename` of `repository` ("owner/name"), found in this order.

    1. `path`, a file, or a folder that holds `filename`: it must be there.
    2. What the environment's `variable` names, in the same way.
    3. The hub's cache, without a network.
    4. The hub, unless HF_HUB_OFFLINE is set or `download` is false.

    `flag` is what messages call the way to give `path`. Raises InputError if a place that was named
    holds no such file, or no other place has it.
    """
    if path is not None:
        return _local(Path(path), filename, flag or "the path")
    if variable and (named := os.environ.get(variable)):
        return _local(Path(named), filename, variable)
    ways = " or ".join(way for way in (flag, variable) if way) or "a path"
    try:
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise InputError(f"{filename} of {repository} is needed: give it with {ways}.") from None
    try:
        try:
            found = huggingface_hub.hf_hub_download(repository, filename, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError:
            if constants.HF_HUB_OFFLINE or not download:
                raise InputError(
                    f"{filename} of {repository} is not in the hub's cache {constants.HF_HUB_CACHE}"
                    f"{', and HF_HUB_OFFLINE is set' if download else ''}: give the file with {ways}."
                ) from None
            found = huggingface_hub.hf_hub_download(repository, filename, revision=revision)
    except InputError:
        raise
    except Exception as error:  # The network, the hub, permissions, a full disk: all end in the same advice.
        first = next(iter(str(error).strip().splitlines()), "").rstrip(".:")
        reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
        raise InputError(
            f"{filename} of {repository} cannot be had from the hub ({reason}): give the file with {ways}."
        ) from None
    return Path(found)


def _local(named: Path, filename: str, way: str) -> Path:
    """The file that `named` is, or that lies in it."""
    file = named.expanduser()
    file = file / filename if file.is_dir() else file
    if not file.is_file():
        where = f"{named} (by {way})"
        raise InputError(
            f"{where} holds no {filename}." if named.is_dir() else f"{where} is not there: give {filename}."
        )
    return file
