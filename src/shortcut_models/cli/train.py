"""`shortcut train PRESET`."""

from dataclasses import dataclass
from pathlib import Path

from shortcut_models.cli import parsing, settings
from shortcut_models.during import During

HELP = """\
usage: shortcut train PRESET [--run-dir DIR] [--dry-run] [--SETTING VALUE ...]

Train PRESET in a run folder. Run again, the same command continues an unfinished run from its last
checkpoint. Ctrl-C saves and stops.

{options}
{choices}
  --SETTING VALUE             Change a setting of the preset, such as --max-steps 500 or
                              --model.hidden-size 96; `-` and `_` are alike.

`shortcut train PRESET --help` lists every setting with its value. The presets:

{presets}

The objectives:

{objectives}

The data sets and the networks:

{data}
{networks}
"""


@dataclass(frozen=True, kw_only=True)
class Train(During):
    """What of a training is no setting of it."""

    run_dir: Path | None = None
    """Folder of the run; by default runs/PRESET."""
    dry_run: bool = False
    """Print shapes, parameters, memory and FLOPs per step, and stop."""


def run(words: list[str]) -> int:
    """Train, or say what it would take."""
    line = parsing.split(words, ["dry_run", "help"]) if not parsing.wants_help(words) else None
    if line is None:
        return _help([word for word in words if word not in parsing.HELP])
    preset = settings.check_preset(line.arguments, "train")
    options = parsing.override(Train(), line)
    if not options.dry_run:
        from shortcut_models import startup

        startup.start_processes()  # Before the settings: data with a VAE in front ask for the devices.
    config = settings.resolve(preset, line, list(parsing.settings(Train))).finished()

    if options.dry_run:
        from shortcut_models.costs import describe

        print(describe(config))
        return 0
    from shortcut_models.train import train

    folder = options.run_dir or Path("runs") / preset.replace("/", "-")
    return train(config, folder, parsing.command_line("train", words), options)


def _help(words: list[str]) -> int:
    line = parsing.split(words, ["dry_run"])
    if not line.arguments:
        options = parsing.settings(Train)
        print(
            HELP.format(
                options=parsing.describe(options).replace("--dry-run 0|1", "--dry-run    ").replace(" (0)", ""),
                choices=settings.choices_help(),
                presets=settings.preset_list(),
                objectives=settings.name_list(settings.catalogue.OBJECTIVES),
                data=settings.name_list(settings.catalogue.DATA),
                networks=settings.name_list(settings.catalogue.NETWORKS),
            ),
            end="",
        )
        return 0
    preset = settings.check_preset(line.arguments, "train")
    shown = settings.describe(settings.choose(preset, line))
    print(f"usage: shortcut train {preset} [--run-dir DIR] [--dry-run] [--SETTING VALUE ...]\n")
    print("What is measured and drawn while it trains is set by --evaluate-every and other flags, which")
    print("`shortcut train --help` lists.\n")
    print(shown)
    return 0
