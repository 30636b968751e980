"""`shortcut presets [PRESET]`."""

from shortcut_models.cli import parsing, settings

HELP = """\
usage: shortcut presets [PRESET]

List the recipes, or show one: what it costs, what to expect, and all its settings, as the flags that would
set them.

{presets}
"""


def run(words: list[str]) -> int:
    """List, or show one."""
    line = parsing.split([word for word in words if word not in parsing.HELP])
    parsing.check_known(line, ())
    if line.arguments:
        line.arguments[0] = settings.check_preset(line.arguments, "presets")
    if parsing.wants_help(words):
        print(HELP.format(presets=settings.preset_list()), end="")
    elif not line.arguments:
        print(settings.preset_list())
    else:
        _show(line.arguments[0])
    return 0


def _show(name: str) -> None:
    from importlib import import_module

    from shortcut_models.presets import get_preset

    page = import_module(f"shortcut_models.{settings.catalogue.PRESETS[name].where.partition(':')[0]}")
    print(f"{name}: {(page.__doc__ or '').strip()}\n\nIts settings:\n")
    for flag in settings.flags(get_preset(name)):
        print(f"  {flag}")
