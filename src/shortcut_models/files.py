"""Writing files whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end takes the place of `path`, or on an error nothing does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(data, indent=2) + "\n")
