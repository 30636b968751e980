"""One sentence for a file that its reader refuses: what the reader says, and what to do about this kind of file."""

from pathlib import Path

from shortcut_models.errors import InputError
from shortcut_models.interop.pickle_reader import shown


def refused(path: Path, error: InputError, advice: str) -> InputError:
    """The error of a reader in `interop`, whose own advice, if it has any, gives way to `advice`."""
    said = str(error).rstrip(".").removeprefix(f"{shown(str(path), 200)} ")
    verb, *reasons = said.split(": ")
    because = f" ({reasons[0]})" if reasons and verb.startswith("cannot be") else ""
    return InputError(f"{path} {verb}{because}: {advice}.")
