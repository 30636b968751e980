"""What a training starts from: a run, a model folder, another program's file or a hub's weights, made its own.

A source that knows only the velocity is converted so that at step 0 the network answers what the source answers,
whatever the step size, and learns the step size from there.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from shortcut_models import catalogue, model_folder, runs, sharding
from shortcut_models.config import Config
from shortcut_models.data.base import Data
from shortcut_models.data.unavailable import stand_in
from shortcut_models.errors import InputError
from shortcut_models.interop import hub
from shortcut_models.interop.importing import TRAIN_TYPES, Imported, format_of, read_weights
from shortcut_models.interop.official import holds_checkpoint
from shortcut_models.interop.pickle_reader import shown
from shortcut_models.interop.samplers import objective_of
from shortcut_models.networks import Network, Params
from shortcut_models.objectives import Objective
from shortcut_models.state import State
from shortcut_models.terminal import Progress
from shortcut_models.weights import read_run


class Start(NamedTuple):
    """What a training starts from, before its weights are read."""

    network: Network
    objective: Objective
    data: Data | None = None
    """What its samples show; None for another program's file, which does not name them."""
    file: Imported | None = None
    """Read already, if it is another program's."""


def find_start(
    source: str,
    start_as: str = "auto",
    num_heads: int | None = None,
    image_size: int | None = None,
    weights: str = "any",
    optimizer: bool = False,
) -> Start:
    """What lies at `source`: a run or model folder, another program's file, or a hub's owner/name.

    `start_as` is `Config.start_as`; the others are as in `read_weights`. Raises InputError for anything else, and for
    what can only be sampled.
    """
    path = Path(source)
    kinds = ("auto", "sit", *TRAIN_TYPES)
    if start_as not in kinds:
        raise InputError(f"--start-as {shown(start_as)} is unknown: use one of {', '.join(kinds)}.")
    if not is_foreign(path):
        if start_as != "auto" or optimizer:
            word = "--start-optimizer" if optimizer else f"--start-as {start_as}"
            raise InputError(f"{word} is for checkpoints of other programs, which {source} is not: leave it out.")
        is_ours = hub.is_id(source) or model_folder.is_model_folder(path)
        found = Start(*model_folder.read_start(source)) if is_ours else _start_of_run(path)
    else:
        form = start_as if start_as in ("auto", "sit") else "official"
        kind = start_as if form == "official" else "shortcut"
        # Other programs' tensors tell the size themselves; whether it fits the data is not theirs to say.
        side = image_size if "official" in (form, format_of(path)) else None
        imported = _read_foreign(str(path), form, num_heads, side, weights, kind, optimizer)
        found = Start(imported.network, objective_of(imported), file=imported)
    if found.network.only_samples:
        first = "make a model folder of it with `shortcut import`, " if found.file else ""
        raise InputError(
            f"--start-from {source} holds a network that can only be sampled: {first}draw pairs from it with "
            "`shortcut pairs`, and train on those."
        )
    return found


@lru_cache(maxsize=1)
def _read_foreign(
    file: str, form: str, heads: int | None, size: int | None, weights: str, kind: str, optimizer: bool
) -> Imported:
    """Another program's weights; kept, because a training asks for their sizes first, and `go_on` lets them go."""
    return read_weights(
        file, format=form, num_heads=heads, image_size=size, weights=weights, train_type=kind, optimizer=optimizer
    )


def is_foreign(path: Path) -> bool:
    """Whether to read it with `read_weights`: another program's file, or a folder of such."""
    if path.is_dir():
        if model_folder.is_model_folder(path):
            return False
        return holds_checkpoint(path) or any((path / name).exists() for name in ("transformer", "config.json"))
    return path.is_file()


def follow_start(config: Config, start_as: str = "auto", num_heads: int | None = None) -> Config:
    """The configuration with the network that it starts from, computed in its own way, for the classes of its data.

    As it is if it starts from nothing that is there. `start_as` and `num_heads` are for files that do not tell. Raises
    InputError if the network is for data of another shape.
    """
    source, data = config.start_from, config.data
    if not source or not (Path(source).exists() or hub.is_id(source)):
        return config
    side = None if data.unnamed or len(data.shape) != 3 else data.shape[0]
    there = find_start(source, start_as, num_heads, side).network
    if not data.unnamed:
        if there.shape != data.shape:
            raise InputError(
                f"--start-from {source} is for inputs of {_by(there.shape)}, but the data's items are "
                f"{_by(data.shape)}: use data of that size."
            )
        there = there.sized(data.shape, data.num_classes)
    own = config.model
    return replace(config, model=there.as_computed_by(own) if type(own) is type(there) else there)


def to_start_from(config: Config, placed: Any) -> Params | None:
    """The averaged weights that `config` starts from, or a file's last ones if it has no others; placed as `placed`.

    None if it starts from nothing.

    A source that was never told step sizes answers the same for all of them; classes of other names start from its
    null label, and a line says so.
    """
    if not config.start_from:
        return None
    start = _start(config)
    network, _, data, file = start
    here = placed
    if (labels := _labels(config, start)) is not None:
        Progress.say(_about_classes(config, start, labels))
    if config.model.num_classes != network.num_classes:
        # Its own table need not divide over the devices as ours does.
        here = jax.tree.map(lambda own: sharding.replicated(own.mesh), placed)
    if data is not None and (others := _about_latents(data, config.data.shows())):
        Progress.say(
            f"{config.start_from} was trained on {others}: what it learnt fits as far as the two encode alike."
        )
    if file is not None:
        Progress.say(f"starting from {config.start_from}: {_facts(file)}.")
        if file.about["weights"] == "raw":
            Progress.say("it has no averaged weights: training and its average both start from the last ones.")
        given = jax.device_put(file.params, here)
    elif hub.is_id(config.start_from) or model_folder.is_model_folder(Path(config.start_from)):
        given = jax.device_put(model_folder.read_params(config.start_from), here)
    else:
        given = read_run(Path(config.start_from), model_folder.shapes_of(network), here, "ema")[1]
    changes = _conversions(config, start)
    if not changes:
        return given

    def convert(params: Params) -> Params:
        for change in changes:
            params = change(params)
        return params

    return jax.jit(convert, out_shardings=placed)(given)


def _about_latents(theirs: Data, ours: Data) -> str:
    """What latents a source was trained on, if they are known to be encoded otherwise than ours; "" if not."""
    (their_vae, their_way), (our_vae, our_way) = map(_encoding, (theirs, ours))
    if their_vae and our_vae and their_vae != our_vae:
        return f"latents of the VAE {shown(their_vae[:12])}, but these are of {our_vae[:12]}"
    if their_way and our_way and their_way != our_way:
        return "latents that are encoded, or scaled, in another way than these"
    return ""


def _encoding(data: Data) -> tuple[str, tuple[float | None, str] | None]:
    """The VAE that encodes data, "" if none is known, and the scale and tool of their latents, None if not known."""
    try:
        known = stand_in(data)
    except InputError:  # The file of the VAE in front of a run's images is gone, or is another one by now.
        return getattr(data, "vae_identity", ""), None
    return known.vae_identity, (known.latent_scale, known.encoded_by)


def _conversions(config: Config, start: Start) -> list[Callable[[Params], Params]]:
    """What makes a source's parameters those to start from."""
    changes: list[Callable[[Params], Params]] = []
    if not np.any(start.objective.jumps(1).d):
        changes.append(start.network.without_step)
    if (labels := _labels(config, start)) is not None:
        changes.append(partial(start.network.with_classes, labels=labels))
    return changes


def _labels(config: Config, start: Start) -> list[int] | None:
    """Which of the source's labels each of the labels here starts from, the null label last; None if they are the same.

    A class goes by its name where names are known on both sides; any other starts from the null label, or, if that
    was never trained, from the mean of all classes, -1.
    """
    before, count = start.network.num_classes, config.model.num_classes
    old = () if start.data is None or start.objective.unconditional else tuple(start.data.class_names)
    new = () if config.data.unnamed or config.objective.unconditional else tuple(config.data.class_names)
    known = len(old) == before and len(new) == count
    if before == count and (not known or old == new):
        return None
    null = start.network.null_label if start.objective.trains_null_label else -1
    if not known or all(name.isdecimal() for name in (*old, *new)):  # Numbers are no names.
        return [null] * (count + 1)
    return [*(old.index(name) if name in old else null for name in new), null]


def _about_classes(config: Config, start: Start, labels: list[int]) -> str:
    """What is said of the labels that training starts from."""
    *own, null = labels
    kept, count = sum(label != null for label in own), len(own)
    answer = "the mean of its classes, as it never learnt to answer without a label"
    answer = answer if null < 0 else "its answer without a label"
    told = f"{config.start_from} was trained on "
    if not kept:
        others = f"{start.network.num_classes} classes" if start.network.num_classes != count else "other classes"
        return f"{told}{others}: the {count} here all start from {answer}."
    rest = f", and the others start from {answer}" if kept < count else ""
    return f"{told}other classes: {kept} of the {count} here go on from the one of their name{rest}."


def go_on(config: Config, state: State) -> tuple[int, State]:
    """Where an official training stood, if `config` asks to go on with it: its step, weights, averages and moments.

    Else step 0 and the state as it is.
    """
    if not config.start_optimizer:
        _read_foreign.cache_clear()
        return 0, state
    raw, averaged = (_start(config, weights).file for weights in ("raw", "any"))
    assert raw is not None and raw.moments is not None and raw.step is not None and averaged is not None
    moments = {name: raw.moments[name] for name in ("mu", "nu")}
    with jax.numpy_dtype_promotion("standard"):
        opt_state = optax.tree_utils.tree_set(state.opt_state, count=np.int32(raw.moments["count"]), **moments)
    changed = state._replace(params=raw.params, ema=averaged.params, opt_state=opt_state)
    if state.target is not None:
        changed = changed._replace(target=averaged.params)
    _read_foreign.cache_clear()
    return raw.step, jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), changed, state)


def check_start(config: Config) -> None:
    """Raise InputError if training cannot start from what `config` names.

    It is not there, its network is another one or only samples, or an objective that needs the velocity of a flow
    would get a network that never learnt it, or never learnt its labels.
    """
    source = config.start_from
    if not source:
        if config.start_as != "auto" or config.start_optimizer:
            raise InputError("--start-as and --start-optimizer say what to do with --start-from: give that as well.")
        return
    start = _start(config)
    there, file = start.network, start.file
    if config.start_optimizer and (file is None or file.step is None):
        raise InputError(f"--start-optimizer is for checkpoints of the official code, which {source} is not.")
    different = [name for name in config.model.differs_from(there) if name != "num_classes"]
    if different:
        lines = "".join(f"\n  model.{n}: {_of(there, n)} there, {_of(config.model, n)} here" for n in different)
        raise InputError(f"--start-from {source} holds another network; use its settings here:{lines}")
    if config.objective.needs_teacher:
        _check_teacher(config, start)
    shapes = model_folder.shapes_of(there)
    for change in _conversions(config, start):
        jax.eval_shape(change, shapes)  # A network that cannot be converted says so.
    if config.start_optimizer and file is not None:
        _check_going_on(config, file.step or 0)
    is_run = file is None and not hub.is_id(source) and not model_folder.is_model_folder(Path(source))
    if is_run and runs.latest(Path(source)) is None:
        raise InputError(f"--start-from {source} has no whole checkpoint yet: train it further first.")


def _check_teacher(config: Config, start: Start) -> None:
    there, objective = start.network, start.objective
    if not objective.learns_velocity:
        kind = catalogue.kind_of(model_folder.SAMPLED_BY, objective)
        raise InputError(
            f"--start-from {config.start_from} was trained with {kind}, which does not learn the velocity that is to "
            "be distilled: start from a run of an objective that does."
        )
    if start.data is not None and (others := _about_latents(start.data, config.data.shows())):
        raise InputError(
            f"--start-from {config.start_from} was trained on {others}: a teacher must know these, so train one."
        )
    guidance = getattr(config.objective, "guidance", 1.0)
    if guidance != 1 and (objective.unconditional or not objective.trains_null_label):
        lacks = "for a label" if objective.unconditional else "without a label"
        raise InputError(
            f"objective.guidance is {guidance}, but --start-from {config.start_from} never learnt to answer {lacks}, "
            "which a guided teacher needs: use guidance 1."
        )
    if there.num_classes != config.model.num_classes:
        raise InputError(
            f"--start-from {config.start_from} was trained on {there.num_classes} classes, but the data have "
            f"{config.model.num_classes}: a teacher must know their labels."
        )
    if _labels(config, start) is not None:
        raise InputError(
            f"--start-from {config.start_from} was trained on other classes than the data have, "
            f"{_different(start, config)}: a teacher must know their labels."
        )


def _different(start: Start, config: Config) -> str:
    """The first class that is called otherwise there and here."""
    old = start.data.class_names if start.data is not None else ()
    return next(
        f"{shown(a)} there, {shown(b)} here" for a, b in zip(old, config.data.class_names, strict=True) if a != b
    )


def _check_going_on(config: Config, step: int) -> None:
    if config.objective.needs_teacher:
        raise InputError("--start-optimizer goes on with a training in one stage, which this is not: leave it out.")
    if _start(config, "raw").network.num_classes != config.model.num_classes:
        raise InputError("--start-optimizer goes on with the same data, but these have other classes: leave it out.")
    if step >= config.max_steps:
        raise InputError(
            f"--start-from {config.start_from} has had {step} steps, but --max-steps is {config.max_steps}, which "
            "counts them: give more."
        )


def _start(config: Config, weights: str = "any") -> Start:
    """What `config` starts from; its model has the sizes that a file does not tell."""
    heads, side = (getattr(config.model, name, None) for name in ("num_heads", "image_size"))
    moments = config.start_optimizer and weights == "raw"
    return find_start(config.start_from, config.start_as, heads, side, weights, moments)


def _start_of_run(folder: Path) -> Start:
    config = runs.read_config(folder)
    return Start(config.model, config.objective, runs.read_shown(folder))


def _facts(file: Imported) -> str:
    """What of a file is worth a line: what it is, which weights, and what was assumed."""
    about = file.about
    told = f"{about['format']} model of {file.kind} kind, weights {about['weights']}"
    told += f", train type {about['train_type']}" if "train_type" in about else ""
    return told + (f", assumed {about['assumed']}" if "assumed" in about else "")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _of(model: Any, name: str) -> Any:
    return catalogue.kind_of(catalogue.NETWORKS, model) if name == "kind" else getattr(model, name)
