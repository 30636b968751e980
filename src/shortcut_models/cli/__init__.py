"""The command `shortcut`: a thin layer that reads arguments, calls the package and prints.

One module a command, with a function `run(words) -> exit status`. It is imported when its command is given, and
imports what takes time after it has answered --help, so that every help is there at once.
"""

import difflib
import sys
from importlib import import_module
from typing import NamedTuple

from shortcut_models import terminal
from shortcut_models.errors import InputError


class Command(NamedTuple):
    """One command; its module has its name."""

    takes: str
    """Its arguments."""
    about: str
    """One line about it."""
    computes: bool = True
    """Whether it loads JAX, for which memory and compiled programs are settled before."""


COMMANDS = {
    "train": Command("PRESET", "train a model in a run folder, or continue one"),
    "sample": Command("RUN", "draw samples from a trained run in any number of steps"),
    "evaluate": Command("TARGET", "measure a run at several step budgets, or images that are there"),
    "figures": Command("RUN", "draw what people look at: samples, errors, learning curves, copies"),
    "report": Command("RUN", "put a run's figures, numbers and settings on one page of HTML"),
    "stats": Command("SOURCE OUT", "compute the reference statistics of a data set for FID"),
    "compare": Command("PRESET", "train and measure several objectives on an equal budget"),
    "prepare": Command("SOURCE OUT", "check, crop and resize a folder of images for training"),
    "pairs": Command("RUN", "draw pairs of noise and sample, the data set of reflow"),
    "import": Command("FILE OUT", "make a model folder of a checkpoint of the official code, SiT, DiT or MeanFlow"),
    "export": Command("RUN OUT", "make a model folder of a run, or a sampler for onnxruntime"),
    "presets": Command("[PRESET]", "list the recipes, or show all settings of one", computes=False),
}

HELP = """\
usage: shortcut COMMAND ...

Generative models that draw an image in one network call, or in as many as you choose.

{commands}

`shortcut COMMAND --help` explains a command, `shortcut --version` says which version this is. A first
run, a few minutes on a CPU:

  shortcut train digits --run-dir runs/digits
  shortcut evaluate runs/digits
"""


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what a user can mend, 128 + n when stopped by signal n.

    Without `words` this is the program itself, which settles first how memory and compiled programs are kept.
    """
    program = words is None
    words = sys.argv[1:] if words is None else words
    return terminal.run(lambda: dispatch(words, program), program)


def dispatch(words: list[str], program: bool = False) -> int:
    """Find the command and run it; raises InputError for an unknown one."""
    if not words or words[0] in ("-h", "--help"):
        lines = (f"  {f'{name} {command.takes}':<20} {command.about}" for name, command in COMMANDS.items())
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"shortcut-models {version('shortcut-models')}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}."
        raise InputError(f"command {name!r} is unknown: {hint}")
    if program and COMMANDS[name].computes and not {"-h", "--help"} & set(rest):
        from shortcut_models import startup

        startup.prepare()
    return import_module(f"shortcut_models.cli.{name}").run(rest)
