"""Finding a file of weights: where the user says, else in the hub's cache, else on the hub."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shortcut_models.errors import InputError, NotHereError
from shortcut_models.files import check_local
from shortcut_models.terminal import Progress

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_id(source: str | Path) -> bool:
    """Whether this reads as `owner/name`, and is no path: a mistyped run in a folder that is here stays a path.

    So does anything in `runs`, the default place of runs, before the first of them has made that folder.
    """
    parent = Path(source).parent
    return _ID.fullmatch(str(source)) is not None and str(parent) != "runs" and not parent.exists()


def find(
    repository: str,
    filename: str,
    *,
    path: str | Path | None = None,
    variable: str | None = None,
    flag: str | None = None,
    revision: str | None = None,
    download: bool = True,
    options: dict[str, Any] | None = None,
) -> Path:
    """The file `filename` of `repository` ("owner/name"), found in this order.

    1. `path`, a file, or a folder that holds `filename`: it must be there.
    2. What the environment's `variable` names, in the same way.
    3. The hub's cache, without a network.
    4. The hub, unless HF_HUB_OFFLINE is set or `download` is false.

    `flag` is what messages call the way to give `path`; `options` are more arguments of `hf_hub_download`: with
    `force_download`, the hub goes before its cache. Raises InputError if a place that was named holds no such file,
    and NotHereError if none was named and no place has it.
    """
    if path is not None:
        return _local(Path(path), filename, flag or "the path")
    if variable and (named := os.environ.get(variable)):
        check_local(variable, named)
        return _local(Path(named), filename, variable)
    ways = " or ".join(way for way in (flag, variable) if way) or "a path"
    try:
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise NotHereError(f"{filename} of {repository} is needed: give it with {ways}.") from None
    asked: dict[str, Any] = {"revision": revision, **(options or {})}
    allowed = download and not constants.HF_HUB_OFFLINE
    try:
        try:
            if not (allowed and asked.get("force_download")):
                cached = asked | {"force_download": False, "local_files_only": True}
                return Path(huggingface_hub.hf_hub_download(repository, filename, **cached))
        except LocalEntryNotFoundError:
            if not allowed:
                cache = asked.get("cache_dir") or constants.HF_HUB_CACHE
                raise NotHereError(
                    f"{filename} of {repository} is not in the hub's cache {cache}"
                    f"{', and HF_HUB_OFFLINE is set' if download else ''}: give the file with {ways}."
                ) from None
        Progress.say(f"fetching {filename} of {repository} from the hub ...")
        with _quiet():
            return Path(huggingface_hub.hf_hub_download(repository, filename, **asked))
    except InputError:
        raise
    except Exception as error:  # The network, the hub, permissions, a full disk: all end in the same advice.
        raise NotHereError(
            f"{filename} of {repository} cannot be had from the hub ({_reason(error)}): give the file with {ways}."
        ) from None


def upload(
    repo_id: str,
    files: Callable[[str], dict[str, bytes | Path]],
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Put files into a model repository in one commit, making it first if it is not there; returns the address.

    The files may name it, as `owner/name`, which the hub completes where only the name was given.

    Raises InputError when HF_HUB_OFFLINE is set, and if the hub refuses.
    """
    try:
        import huggingface_hub
        from huggingface_hub import CommitOperationAdd, constants
    except ImportError:
        raise InputError("the package huggingface_hub is needed to upload a model: install it.") from None
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{repo_id} cannot be uploaded while HF_HUB_OFFLINE is set: unset it.")
    try:
        api = huggingface_hub.HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        made = api.create_commit(
            repo_id,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in files(repo_id).items()
            ],
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    except Exception as error:  # The network, the hub, permissions, a name that it does not allow.
        raise InputError(f"{repo_id} cannot be uploaded ({_reason(error)}).") from None
    return str(made.pr_url if create_pr and made.pr_url else made.commit_url)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's lines on every attempt: what comes of them is told in one sentence."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _reason(error: Exception) -> str:
    """A failure in a few words: its kind, and the first line of what it says."""
    first = next(iter(str(error).strip().splitlines()), "").rstrip(".:")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


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
