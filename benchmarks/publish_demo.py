"""Publish the demo's picture, numbers and table in the README: `python benchmarks/publish_demo.py`.

Reads runs/digits, as `make demo` leaves it; the table in the README is made from report.json.
"""

import json
import shutil
from pathlib import Path

RUN, DOCS, README = Path("runs/digits"), Path("docs"), Path("README.md")


def markdown(report: dict) -> str:
    """A row per budget, a column per metric."""
    names = list(next(iter(report["steps"].values())))
    lines = ["| steps | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for steps, values in [*report["steps"].items(), ("real", report["real"])]:
        lines.append(f"| {steps} | " + " | ".join(f"{values[name]:.3f}" for name in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    report = json.loads((RUN / "report.json").read_text())
    shutil.copy(RUN / "samples.png", DOCS / "demo.png")
    shutil.copy(RUN / "report.json", Path("benchmarks/results/demo.json"))
    text = README.read_text()
    before, after = text.split("<!-- table -->")[0], text.split("<!-- /table -->")[1]
    README.write_text(f"{before}<!-- table -->\n{markdown(report)}\n<!-- /table -->{after}")
