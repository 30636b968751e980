"""`shortcut prepare SOURCE OUT --size N`."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError


@dataclass(frozen=True)
class Prepare:
    """Check every image of SOURCE, crop and resize it, and write all to OUT as arrays that training maps.

    SOURCE is a folder or zip of images, or data in another format: a name or a path, as --data takes it.
    Latents that EDM2's or REPA's tool encoded are kept as they are, in half the space.
    Interrupted, the same command continues. `shortcut prepare --check SOURCE` only says what is there.
    """

    source: str
    """Name or path of the images; KIND:PATH says how to read a path."""
    out: Path
    """Folder to write."""
    size: int
    """Height and width of the prepared images."""
    split: str = "train"
    """Which split of the source."""
    crop: Literal["center", "adm"] = "center"
    """Crop the middle and resize as the original does, or as ADM, DiT and EDM2 do."""
    alpha: Literal["drop", "white", "black"] = "drop"
    """What becomes of transparency: dropped, so that hidden colours appear, or laid on white or black."""
    labels: bool = True
    """Whether to use the classes."""
    latents: Literal["", "edm2", "repa"] = ""
    """Whose tool encoded the latents of SOURCE, which nothing in them says."""
    vae: Path | None = None
    """Weights of an SD-VAE (.safetensors): write its latents instead of images."""
    vae_dtype: Literal["float32", "bfloat16"] = "float32"
    """What it computes in; bfloat16, for GPUs, is off by 1.5 to 1.8 %."""
    part: str = "1/1"
    """K/N: do the K-th of N parts, one on each of N machines; the plain command then puts them together."""
    most_left_out: float = 0.01
    """Share of the images that may be unusable."""
    threads: int | None = None
    """Threads that read and resize; by default one a core."""


OF_DATA = ("data.image", "data.label", "data.labels")
"""Settings of some sources that have no flag of their own here, and that their errors advise."""
LISTED = 20
"""Images left out that a check names."""
CHECK = """
  --check SOURCE              Read every image, say what is there and what would be left out, and
                              write nothing."""


def run(words: list[str]) -> int:
    """Prepare, or check."""
    if parsing.wants_help(words):
        # Of the positional arguments, the size is the one that people know as a flag.
        usage = parsing.usage(Prepare, "prepare").replace("SOURCE OUT SIZE", "SOURCE OUT --size N")
        print(usage.replace("  SIZE    ", "  --size N") + CHECK)
        return 0
    if "--check" in words:
        return _check([word for word in words if word != "--check"])
    words, more = _positional(words)
    given = parsing.parse(Prepare, "prepare", words)

    from shortcut_models.prepare import prepare

    manifest = prepare(
        _source(given.source, more, given.latents, crop=given.crop, alpha=given.alpha, labels=given.labels),
        given.out,
        size=given.size,
        split=given.split,
        vae=_vae(given.vae, given.vae_dtype),
        part=_part(given.part),
        most_left_out=given.most_left_out,
        threads=given.threads,
    )
    if not manifest:
        print(f"part {given.part} of {given.out} is done; when all are, run the same command without --part.")
        return 0
    for note, count in manifest["notes"].items():
        print(f"note: {note}, {count} image{'s' * (count != 1)}")
    for warning in manifest["warnings"]:
        print(warning)
    shape = " x ".join(map(str, manifest["shape"]))
    print(
        f"{manifest['count']} items of {shape} in {manifest['num_classes']} class"
        f"{'es' * (manifest['num_classes'] != 1)}, {len(manifest['left_out'])} left out: {given.out}"
    )
    return 0


def _positional(words: list[str]) -> tuple[list[str], parsing.Line]:
    """The words with --size N put third among the arguments, and the flags of `OF_DATA` apart."""
    line = parsing.split(words)
    more = _of_data(line)
    size = line.take("size")
    if size is None:
        raise InputError("--size is missing: the height and width of the prepared images, such as --size 64.")
    if len(line.arguments) != 2:
        found = ", ".join(map(repr, line.arguments)) or "nothing"
        raise InputError(f"prepare takes SOURCE and OUT, but was given {found}: shortcut prepare SOURCE OUT --size N.")
    flags = [word for name, value in line.flags.items() for word in (parsing.flag(name), value)]
    return [*line.arguments, size, *flags], more


def _of_data(line: parsing.Line) -> parsing.Line:
    """Take the flags of `OF_DATA` out of a line."""
    return parsing.Line([], {name: line.flags.pop(name) for name in OF_DATA if name in line.flags})


def _source(place: str, more: parsing.Line, latents: str = "", **settings: Any) -> Any:
    """The data, with these settings; raises InputError for one that is no default and that they do not have."""
    from shortcut_models.data import choose

    data = choose(place, latents=latents)
    known = {field.name for field in dataclasses.fields(data)}
    for name, value in settings.items():
        if name not in known and value != getattr(Prepare, name):
            raise InputError(f"{parsing.flag(name)} {value} does not fit {place!r}: leave it out.")
    for name in more.flags:
        if name.removeprefix("data.") not in known:
            raise InputError(f"{parsing.flag(name)} does not fit {place!r}: leave it out.")
    data = dataclasses.replace(data, **{name: value for name, value in settings.items() if name in known})
    return parsing.override(data, more, "data.")


def _vae(path: Path | None, dtype: str) -> Any:
    if path is None:
        if dtype != Prepare.vae_dtype:
            raise InputError(f"--vae-dtype {dtype} says what a VAE computes in, but no --vae is given.")
        return None
    from shortcut_models.codecs.sd_vae_file import find_vae, load_vae

    return load_vae(find_vae(path), dtype=dtype)


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise InputError(f"--part {text} must be K/N, such as 1/4.")
    return int(found[1]), int(found[2])


def _check(words: list[str]) -> int:
    line = parsing.split(words)
    more = _of_data(line)
    split, latents = line.take("split") or "train", line.take("latents") or ""
    for name in (field.name for field in dataclasses.fields(Prepare)):
        if name in line.flags:
            raise InputError(
                f"{parsing.flag(name)} does not fit --check, which reads images as they are: leave it out."
            )
    parsing.check_known(line, ["split", "latents"])
    if len(line.arguments) != 1:
        raise InputError(
            "shortcut prepare --check takes one SOURCE, and writes nothing: shortcut prepare --check SOURCE."
        )

    from shortcut_models.prepare_check import check

    found = check(_source(line.arguments[0], more, latents), split)
    heights, widths = found["heights"], found["widths"]
    sizes = f", {widths[0]}x{heights[0]} to {widths[2]}x{heights[2]}" if found["count"] else ""
    print(f"{found['count']} usable images{sizes}")
    classes = list(zip(found["class_counts"], found["class_names"], strict=False))
    for count, name in classes[:LISTED]:
        print(f"  {count:>8}  {name}")
    if rest := [count for count, _ in classes[LISTED:]]:
        print(f"            and {len(rest)} more classes, of {min(rest)} to {max(rest)} images each")
    for reason, count in found["left_out_by_reason"].items():
        print(f"  {count:>8}  left out: {reason}")
    for bad in found["left_out"][:LISTED]:
        print(f"            {bad['name']}: {bad['detail']}")
    if len(found["left_out"]) > LISTED:
        print(f"            and {len(found['left_out']) - LISTED} more, which the manifest will list")
    for note, count in found["notes"].items():
        print(f"  {count:>8}  note: {note}")
    for warning in found["warnings"]:
        print(warning)
    left, total = len(found["left_out"]), found["count"] + len(found["left_out"])
    if not total:
        print("`shortcut prepare` would not accept this: there is nothing to prepare.")
    elif left > Prepare.most_left_out * total:
        print(
            f"`shortcut prepare` would not accept this: {left} of {total} are left out, more than the share "
            f"{Prepare.most_left_out:g}; allow more by --most-left-out."
        )
    return 0
