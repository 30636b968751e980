"""Sort 3,786 emoji into a folder a class, ready for `shortcut prepare`.

    python examples/emoji.py emoji              # fetches the npm package emoji-datasource-twitter 16.0.0 (62 MB)
    python examples/emoji.py emoji package      # from the package, unpacked

docs/emoji.md says how to go on. The pictures are Twemoji, by Twitter and jdecked's contributors, CC BY 4.0; the classes
are the package's own categories.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "emoji-datasource-twitter@16.0.0"


def pictures(package: Path) -> Iterator[tuple[str, str]]:
    """Category and file name of each picture; a person in another skin is of the same category."""
    for emoji in json.loads((package / "emoji.json").read_text()):
        for picture in (emoji, *emoji.get("skin_variations", {}).values()):
            if picture["has_img_twitter"]:
                yield emoji["category"], picture["image"]


def sort(package: Path, out: Path) -> int:
    """Copy every picture to OUT/CATEGORY; how many there are."""
    count = 0
    for category, name in pictures(package):
        folder = out / category.lower().replace(" & ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / "img/twitter/64" / name, folder / name)
        count += 1
    return count


def fetch(folder: Path) -> Path:
    """The package, downloaded by npm and unpacked."""
    done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def main() -> None:
    """As the words of the command line say."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python examples/emoji.py OUT [PACKAGE]")
    out = Path(sys.argv[1])
    if out.exists():
        sys.exit(f"{out} is there already: remove it, or name another folder.")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(sys.argv[2]) if len(sys.argv) == 3 else fetch(Path(folder))
        print(f"{sort(package, out)} pictures: {out}")


if __name__ == "__main__":
    main()
