"""Fill docs/results.md with the comparisons on Fashion-MNIST: `python -m benchmarks.publish_fashion time|write|whole`.

`write` reads what `shortcut compare fashion` left in runs/compare-fashion, and gathers it in
benchmarks/results/fashion.json; `whole` does the same of runs/fashion-whole, the preset at its whole length.
`time` measures the methods' steps in turns, on an idle machine, as publish_results does.
"""

import json
import shutil
import sys
from pathlib import Path

from benchmarks.publish_results import Reports, charge, fill, measure_time
from shortcut_models import catalogue
from shortcut_models.compare import table
from shortcut_models.files import write_json

RUN, WHOLE = Path("runs/compare-fashion"), Path("runs/fashion-whole")
DOCS, RESULTS = Path("docs"), Path("benchmarks/results")
TIME = "fashion-time.json"


def read(run: Path = RUN) -> Reports:
    """The reports of all methods and seeds."""
    reports = [json.loads(path.read_text()) for path in sorted(run.glob("*-seed-*.json"))]
    named = {name: [report for report in reports if report["objective"] == name] for name in catalogue.OBJECTIVES}
    return {name: own for name, own in named.items() if own}


def publish(run: Path = RUN, docs: Path = DOCS, results: Path = RESULTS, name: str = "fashion") -> None:
    """Write table, picture and numbers, all called `name`; the text around the table is written by hand."""
    found = read(run)
    charge(found, results / TIME)
    steps = [int(n) for n in next(iter(found.values()))[0]["steps"]]
    page = docs / "results.md"
    page.write_text(fill(page.read_text(), name, table(found, steps).strip()))
    write_json(results / f"{name}.json", found)
    shutil.copy(run / "samples.png", docs / f"results-{name}-samples.png")


if __name__ == "__main__":
    if sys.argv[1:] not in (["time"], ["write"], ["whole"]):
        sys.exit(__doc__)
    if sys.argv[1] == "time":
        found = read()
        measure_time(next(iter(found.values()))[0]["settings"], list(found), RESULTS / TIME, turns=5, steps=4)
    elif sys.argv[1] == "whole":
        publish(WHOLE, name="fashion-whole")
    else:
        publish()
