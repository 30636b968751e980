"""The pages: docs/speed.md and docs/scaling.md, their tables made from the JSON files."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.speed import aims
from benchmarks.speed.measure import Row


def write(page: Path, data: Path) -> None:
    """Fill every `<!-- NAME -->` ... `<!-- /NAME -->` of the page with the table of NAME.json, if there is one.

    `DEVICE-aims` has no file: it is made from those of the parts.
    """

    def table(found: re.Match[str]) -> str:
        path = data / f"{found[1]}.json"
        if found[1].endswith("-aims"):
            text = aims.markdown(found[1].removesuffix("-aims"), data)
        else:
            text = markdown(json.loads(path.read_text())) if path.exists() else "Not measured yet."
        return f"<!-- {found[1]} -->\n{text}\n<!-- /{found[1]} -->"

    page.write_text(re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- /\1 -->", table, page.read_text(), flags=re.DOTALL))


def markdown(report: dict[str, Any]) -> str:
    """A table of the rows, columns in order of appearance, and a line on where they were measured."""
    rows: list[Row] = report["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in columns) + " |" for row in rows]
    commit = report.get("commit") or "unknown"
    commit = commit[:12] + "+" * commit.endswith("+")  # Changed since.
    busy = ", PROVISIONAL: other programs were running" if report["busy"] else ""
    about = f"`{report['command']}`, commit {commit}, {report['device']}, {report['time'][:10]}{busy}"
    extra = "".join(f"; {name} {_cell(value)}" for name, value in report.get("about", {}).items())
    return "\n".join([*lines, "", about + extra + "."])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")
