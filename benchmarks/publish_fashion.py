"""Fill docs/results.md with the comparison on Fashion-MNIST: `python -m benchmarks.publish_fashion`.

Reads what `shortcut compare fashion` left in runs/compare-fashion, and gathers it in benchmarks/results/fashion.json.
"""

import json
import shutil
from pathlib import Path

from benchmarks.publish_results import fill
from shortcut_models import catalogue
from shortcut_models.compare import table
from shortcut_models.files import write_json

RUN, DOCS, RESULTS = Path("runs/compare-fashion"), Path("docs"), Path("benchmarks/results")


def publish(run: Path = RUN, docs: Path = DOCS, results: Path = RESULTS) -> None:
    """Write table, pictures and numbers; the text around the table is written by hand."""
    reports = [json.loads(path.read_text()) for path in sorted(run.glob("*-seed-*.json"))]
    named = {name: [report for report in reports if report["objective"] == name] for name in catalogue.OBJECTIVES}
    found = {name: own for name, own in named.items() if own}
    page = docs / "results.md"
    page.write_text(fill(page.read_text(), "fashion", table(found, [int(n) for n in reports[0]["steps"]]).strip()))
    write_json(results / "fashion.json", found)
    for name in ("quality", "samples"):
        shutil.copy(run / f"{name}.png", docs / f"results-fashion-{name}.png")


if __name__ == "__main__":
    publish()
