"""Small image files, and marks, for the tests of sources."""

import importlib.util
import io
from pathlib import Path

import pytest
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "data"
needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is an extra")


def png(value: int = 0, side: int = 8) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 255 - value)).save(file, "PNG")
    return file.getvalue()


def write(root: Path, *names: str) -> Path:
    """A picture by each name below a folder, each of its own colour."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    return root
