"""`shortcut stats SOURCE OUT`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortcut_models.cli import parsing
from shortcut_models.errors import InputError


@dataclass(frozen=True)
class Stats:
    """Compute the reference statistics of a data set for FID under a named protocol, once and for all.

    The file records protocol, number of images, precision and hashes; `shortcut evaluate RUN --stats OUT`
    compares with it.
    """

    source: str
    """Name or path of the images; KIND:PATH says how to read a path."""
    out: Path
    """File to write, .npz."""
    protocol: Literal["", "paper", "adm", "clean", "fid-paper", "fid-adm", "fid-clean"] = ""
    """How images are resized and rounded: as the paper's code, as ADM's evaluator, or as clean-fid."""
    split: str = ""
    """Which split of the source; by default the one to train on."""
    inception: Path | None = None
    """Weights of the Inception network of 2015-12-05; by default SHORTCUT_INCEPTION, or the hub's cache."""
    any_inception: bool = False
    """Take an Inception file with another hash than the published one."""


def run(words: list[str]) -> int:
    """Compute, unless the file is there."""
    if parsing.wants_help(words):
        print(parsing.usage(Stats, "stats"))
        return 0
    given = parsing.parse(Stats, "stats", words)
    if not given.protocol:
        raise InputError("--protocol is missing: paper, adm or clean; numbers of two protocols do not compare.")
    if given.out.suffix != ".npz":
        raise InputError(f"{given.out} must end in .npz.")

    from shortcut_models.data import choose
    from shortcut_models.metrics.statistics import stats

    about = stats(
        choose(given.source),
        given.out,
        given.protocol.removeprefix("fid-"),
        given.inception,
        given.any_inception,
        given.split or None,
    )
    print(f"statistics of {about['count']} images under protocol {given.protocol}: {given.out}")
    return 0
