"""A model folder: one network's weights with all that is needed to use them, to be kept and shared.

`model.safetensors` has the parameters by their flat names, `config.json` what they belong to, and
`README.md` is the model card. A hub's repository `owner/name` with these files is the same thing.
"""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from shortcut_models import catalogue, choice_json
from shortcut_models.data.base import Data
from shortcut_models.data.unavailable import what_is_known
from shortcut_models.errors import InputError
from shortcut_models.files import absolute, explained, make_folder, naming, remove_empty, write_json, write_text
from shortcut_models.interop import hub
from shortcut_models.interop.file_bytes import bytes_of, reading
from shortcut_models.interop.pickle_reader import shown
from shortcut_models.interop.safetensors_file import parse_json, read_safetensors
from shortcut_models.model import Model
from shortcut_models.model_card import HERE, card, load_line, quality_of, rounding_effect, without_paths
from shortcut_models.networks import Network, Params
from shortcut_models.objectives import Objective

LIBRARY = "shortcut-models"
FORMAT = 1
TENSORS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
CODES = {"float32": "F32", "bfloat16": "BF16"}
"""What safetensors calls them."""
FIELDS = {
    "step": int,
    "weights": str,
    "sha256": str,
    "dtype": str,
    "class_names": list,
    "codec": dict,
    "license": str,
    "about": dict,
    "quality": dict,
}
"""Of config.json, and their kinds."""
NEEDED = ("step", "weights", "sha256", "dtype")
WEIGHTS = ("ema", "raw", "as saved")
"""Averaged, the last ones, or of a file that does not say."""
LARGEST_CONFIG = 10_000_000
DEEPEST, LARGEST_INPUT = 1000, 1 << 28
"""More blocks, and numbers of an input, than any network has: a file that promises more is damaged."""
SAMPLED_BY = catalogue.OBJECTIVES | catalogue.SAMPLERS


def is_model_folder(folder: Path) -> bool:
    """Whether a folder says that it is one of ours; it may still be damaged."""
    try:
        path = folder / CONFIG
        if not path.is_file() or path.stat().st_size > LARGEST_CONFIG:
            return False
        return json.loads(path.read_text(encoding="utf-8")).get("library") == LIBRARY
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def save_pretrained(
    model: Model,
    save_directory: str | Path,
    *,
    dtype: str = "float32",
    license: str = "",  # noqa: A002 - the hub's word
    about: dict[str, Any] | None = None,
    report: dict[str, Any] | None = None,
) -> Path:
    """Write a model folder, whole or not at all; returns it.

    Args:
        model: The model, as `load` returns it.
        save_directory: Where to; it must not exist, or be empty.
        dtype: "float32", or "bfloat16" for half the size. What that changes is measured, and kept with the facts.
        license: The hub's identifier of the licence, such as "mit"; the model card says if there is none.
        about: Plain facts to keep, such as where the weights come from.
        report: Measured quality, as `shortcut evaluate` writes it; left out if it is of other weights.

    Raises:
        InputError: The folder holds something, cannot be written, or what it is told cannot be kept.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown: use float32 or bfloat16.")
    if not isinstance(model, Model):
        raise InputError(f"{type(model).__name__} is no model: give what `load` returns.")
    if license and not (isinstance(license, str) and re.fullmatch(r"[\w.+-]+", license)):
        raise InputError(f"license {license!r} is no identifier of the hub's, such as mit or cc-by-4.0.")
    try:
        facts = dict(about or {})
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"about must be a dict of plain values that JSON has ({error}).") from None
    folder = _path(save_directory)
    with explained():
        is_there = folder.is_dir()
        if os.path.lexists(folder) and (not is_there or any(folder.iterdir())):
            raise InputError(f"{folder} is there already: choose another folder, or empty it.")
    if dtype != "float32" and dtype not in facts:  # What was rounded before is not moved again.
        facts[dtype] = rounding_effect(model, DTYPES[dtype])
    # In a folder that is there: it may be a link, a volume or the working directory, whose place none can take.
    aside = (folder if is_there else folder.parent) / f".aside-{secrets.token_hex(6)}"
    with explained(), naming(folder, instead_of=aside):
        made = make_folder(aside.parent)
        try:
            aside.mkdir()
            _write_tensors(aside / TENSORS, model.params, DTYPES[dtype])
            config = _describe(model, dtype, _sha256(aside / TENSORS), facts)
            config |= {"license": license, "quality": quality_of(model, report, dtype)}
            write_json(aside / CONFIG, config)
            write_text(aside / CARD, card(config, Path(absolute(folder)).name))
            if aside.parent == folder:
                for name in (TENSORS, CARD, CONFIG):  # The last makes it a model folder.
                    (aside / name).replace(folder / name)
            else:
                aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            remove_empty(made)
    return folder


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
    dtype: str = "float32",
) -> Model:
    """The model of a model folder, or of a hub's repository `owner/name`; what lies here goes first.

    Args:
        source: The folder or repository.
        revision: Branch, tag or commit of a repository.
        cache_dir: The hub's cache, if not the usual one.
        force_download: Download even what the cache has.
        local_files_only: Take nothing that the cache lacks, as with HF_HUB_OFFLINE=1.
        token: Of the hub's user, if not the one that huggingface_hub is logged in as.
        dtype: "float32" computes in it; "trained" as in training.

    Raises:
        InputError: It is not there, damaged, or of another version.
    """
    if dtype not in ("float32", "trained"):
        raise InputError(f"dtype {dtype!r} is unknown: use float32, or trained to compute as in training.")
    options = {"cache_dir": cache_dir, "force_download": force_download, "token": token}
    config, tensors = _files(_path(source), revision=revision, download=not local_files_only, options=options)
    network, objective, data, about = read_config(config)
    params = _read_tensors(tensors, network, about)
    network = network.exact() if dtype == "float32" else network
    return Model(network, params, objective, data, step=about["step"], weights=about["weights"])


def push_to_hub(
    source: Model | str | Path,
    repo_id: str,
    *,
    commit_message: str = "Upload a model of shortcut-models",
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    dtype: str = "float32",
    license: str = "",  # noqa: A002 - the hub's word
    about: dict[str, Any] | None = None,
    report: dict[str, Any] | None = None,
) -> str:
    """Upload a model, or a model folder, to the hub, without the paths where its data lie here.

    Returns the commit's address. The arguments are those of huggingface_hub's own `push_to_hub`; the last four are
    what `save_pretrained` takes of a model, and refused for a folder, which has its own. Raises InputError for a
    folder that is no model folder, when HF_HUB_OFFLINE is set, and if the hub refuses.
    """
    facts: dict[str, Any] = {"dtype": dtype, "license": license, "about": about, "report": report}
    if isinstance(source, Model):
        with tempfile.TemporaryDirectory() as aside:
            folder = save_pretrained(source, Path(aside) / repo_id.rpartition("/")[2], **facts)
            return push_to_hub(
                folder,
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
            )
    folder = _path(source)
    if not is_model_folder(folder):
        raise InputError(f"{folder} is no model folder: write one with save_pretrained or `shortcut export`.")
    for name, value in facts.items():
        if value and value != "float32":
            raise InputError(f"{name} {value!r} is for a model, but {folder} is uploaded as it is: leave {name} out.")
    from_pretrained(folder)  # Nobody is to download what does not load.
    text, config = (folder / CARD).read_text(encoding="utf-8"), _public(folder / CONFIG)

    def files(repository: str) -> dict[str, bytes | Path]:
        # Whatever the folder was called when its card was written.
        told = re.sub(rf"load\(.*\)(?={re.escape(HERE)})", lambda _: load_line(repository), text)
        return {CARD: told.encode(), CONFIG: config, TENSORS: folder / TENSORS}

    return hub.upload(
        repo_id,
        files,
        commit_message=commit_message,
        private=private,
        token=token,
        branch=branch,
        create_pr=create_pr,
    )


def _public(path: Path) -> bytes:
    """A model folder's configuration with what is known of its data in place of paths on this machine."""
    network, _, _, about = read_config(path)
    if _has_files(about["shows"]):
        data = what_is_known(network.shape, network.num_classes, about)
        about = about | {"shows": choice_json.to_json(catalogue.DATA, data)}
    if (quality := about.get("quality")) and isinstance(quality.get("protocol"), dict):
        about = about | {"quality": quality | {"protocol": without_paths(quality["protocol"])}}
    return json.dumps(about, indent=2).encode()


def read_facts(source: str | Path) -> dict[str, Any]:
    """What `save_pretrained` was told of a model besides: license, about and report."""
    config = _files(source, tensors=False)[0]
    found = read_config(config)[3]
    facts = {"license": found.get("license", ""), "about": found.get("about", {}), "report": found.get("quality", {})}
    with reading(config):
        for name, value in facts.items():
            if type(value) is not (str if name == "license" else dict):
                raise InputError(f"its field {'quality' if name == 'report' else name} is of another kind")
    return facts


def read_data(source: str | Path) -> Data:
    """What a model's samples show, without its weights."""
    return read_config(_files(source, tensors=False)[0])[2]


def read_start(source: str | Path) -> tuple[Network, Objective, Data]:
    """Network, objective and data of a model, without its weights."""
    return read_config(_files(source, tensors=False)[0])[:3]


def read_params(source: str | Path) -> Params:
    """The parameters of a model, float32, on the host."""
    config, tensors = _files(source)
    network, _, _, about = read_config(config)
    return _read_tensors(tensors, network, about)


def shapes_of(network: Network) -> Params:
    """The shapes of a network's parameters; raises InputError for sizes that no network has."""
    if not 0 <= getattr(network, "depth", 0) <= DEEPEST:
        raise InputError("its network is deeper than any")
    if math.prod(network.shape) > LARGEST_INPUT:
        raise InputError("its network is for larger inputs than any")
    return jax.eval_shape(network.init, jax.random.key(0))


def read_config(path: Path) -> tuple[Network, Objective, Data, dict[str, Any]]:
    """What config.json says: the three choices, and all of it as plain values. Raises InputError."""
    raw = bytes_of(path)
    with reading(path):
        if len(raw) > LARGEST_CONFIG:
            raise InputError("it is larger than any configuration")
        about = parse_json(bytes(raw))
        if about.get("library") != LIBRARY:
            raise InputError("it is not the config.json of a model folder, which `shortcut export` and `import` write")
        if type(about.get("format")) is not int or about["format"] != FORMAT:
            raise InputError(f"its format is not {FORMAT}, the one that this version of {LIBRARY} reads")
        for name, kind in FIELDS.items():
            missing = None if name in NEEDED else kind()
            if type(about.get(name, missing)) is not kind:
                raise InputError(f"its field {name} is missing, or of another kind")
        if about["dtype"] not in DTYPES:
            raise InputError(f"its field dtype is {shown(about['dtype'])}, but must be one of {', '.join(DTYPES)}")
        if about["weights"] not in WEIGHTS:
            raise InputError(f"its field weights is {shown(about['weights'])}, but must be one of {', '.join(WEIGHTS)}")
        if not 0 <= about["step"] < 2**53:
            raise InputError(f"its field step is {shown(str(about['step']))}, but must be a whole number from 0 up")
        network = choice_json.from_json(catalogue.NETWORKS, about.get("network"), "network")
        objective = choice_json.from_json(SAMPLED_BY, about.get("objective"), "objective")
        data = choice_json.from_json(catalogue.DATA, about.get("shows"), "shows")
        _check_agreement(network, objective, data, about)
        if not data.is_here:  # It was trained elsewhere, or they have moved.
            data = what_is_known(network.shape, network.num_classes, about)
    return network, objective, data, about


def _check_agreement(network: Network, objective: Objective, data: Data, about: dict[str, Any]) -> None:
    """Raise InputError if the parts of a configuration contradict each other."""
    names, classes = about.get("class_names", []), network.num_classes
    if not all(type(name) is str for name in names) or len(names) not in (0, classes):
        raise InputError(f"its field class_names must be a text for each of the network's {classes} classes, or none")
    if _has_files(about["shows"]) or not data.is_here:
        return  # What files hold would have to be looked up, and their VAE be here too.
    if data.shape != network.shape:
        raise InputError(f"its network has items of shape {network.shape}, and what it shows of {data.shape}")
    if classes and not objective.unconditional and data.num_classes != classes:
        raise InputError(f"its network has {classes} classes, and what it shows {data.num_classes}")
    if about.get("codec", {}).get("identity", data.codec.identity) != data.codec.identity:
        raise InputError("its field codec is not that of what it shows")


def _has_files(shows: dict[str, Any]) -> bool:
    """Whether data lie in files, or are encoded by a VAE's, which another machine need not have."""
    return any(shows.get(name) for name in ("path", "vae"))


def _describe(model: Model, dtype: str, sha256: str, about: dict[str, Any]) -> dict[str, Any]:
    codec = model.data.codec
    encoded = {name: getattr(codec, name) for name in ("scale", "encoded_by") if hasattr(codec, name)}
    return {
        "library": LIBRARY,
        "format": FORMAT,
        "network": choice_json.to_json(catalogue.NETWORKS, model.network),
        "objective": choice_json.to_json(SAMPLED_BY, model.objective),
        "shows": choice_json.to_json(catalogue.DATA, model.data),
        "codec": {"identity": codec.identity, **encoded},
        "class_names": list(model.class_names),
        "step": int(model.step),
        "weights": model.weights,
        "dtype": dtype,
        "sha256": sha256,
        "about": about,
    }


def _write_tensors(path: Path, params: Params, dtype: np.dtype) -> None:
    # What a network has unrolled for speed is stacked again, as it is drawn.
    whole = {
        name: jax.tree.map(lambda *leaves: np.stack(leaves), *map(jax.device_get, part))
        if isinstance(part, tuple)
        else jax.device_get(part)
        for name, part in params.items()
    }
    tensors = {name: np.ascontiguousarray(np.asarray(leaf).astype(dtype)) for name, leaf in _flat(whole).items()}
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    end = 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": CODES[dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # So that the numbers are aligned.
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(array.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _read_tensors(path: Path, network: Network, about: dict[str, Any]) -> Params:
    """The parameters in the layout of `network.init`; raises InputError naming what does not fit."""
    tensors = read_safetensors(path)
    with reading(path):
        if _sha256(path) != about["sha256"]:
            raise InputError("its SHA-256 is not the one in config.json: download or copy it again")
        drawn = shapes_of(network)
        wanted = _flat(drawn)
        if odd := sorted(set(wanted) ^ set(tensors)):
            raise InputError(f"it has not just the tensors of the network in config.json: {shown(odd[0])} differs")
        for name, leaf in wanted.items():
            if tensors[name].shape != leaf.shape or tensors[name].dtype != np.float32:
                raise InputError(
                    f"{name} is {tensors[name].dtype} of shape {tensors[name].shape}, but the network in config.json "
                    f"has shape {leaf.shape}"
                )
        return jax.tree.unflatten(jax.tree.structure(drawn), [tensors[name] for name in wanted])


def _flat(params: Params) -> dict[str, Any]:
    """Leaves by their path, as blocks.qkv.kernel, in the order of jax.tree."""
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in _paths(params)}


def _paths(params: Params) -> list[Any]:
    return jax.tree_util.tree_flatten_with_path(params)[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _path(given: Any) -> Path:
    if not isinstance(given, str | Path) or not str(given) or "\0" in str(given):
        raise InputError(f"{given!r} is no path: name a folder.")
    return Path(given)


def _files(source: str | Path, tensors: bool = True, **how: Any) -> tuple[Path, Path]:
    """Paths of config.json and the tensors; `how` is what `hub.find` is told of a repository."""
    if hub.is_id(source):
        config = hub.find(str(source), CONFIG, **how)
        return config, hub.find(str(source), TENSORS, **how) if tensors else config
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a model folder nor the name of a hub's repository, owner/name.")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is no model folder: it holds no {CONFIG}, which `shortcut export` writes.")
    return folder / CONFIG, folder / TENSORS
