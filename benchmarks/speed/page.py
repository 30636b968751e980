"""A page's tables, made from the JSON files: `python -m benchmarks.speed.page` for those on speed."""

import json
import re
from pathlib import Path
from typing import Any

RESULTS, PAGES = Path("benchmarks/results"), (Path("docs/speed.md"), Path("docs/gpu.md"))
HIDDEN = ("compiler's GFLOP", "ceiling TFLOP/s", "x shortcut")  # Columns that the files have and a page leaves out.


def write(page: Path, data: Path) -> None:
    """Fill every `<!-- NAME -->` ... `<!-- /NAME -->` of the page with the table of NAME.json."""

    def table(found: re.Match[str]) -> str:
        path = data / f"{found[1]}.json"
        text = markdown(json.loads(path.read_text())) if path.exists() else "Not measured yet."
        return f"<!-- {found[1]} -->\n{text}\n<!-- /{found[1]} -->"

    page.write_text(re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- /\1 -->", table, page.read_text(), flags=re.DOTALL))


def markdown(report: dict[str, Any]) -> str:
    """A table of the rows, columns in order of appearance, and a line on where they were measured."""
    columns = [name for name in dict.fromkeys(name for row in report["rows"] for name in row) if name not in HIDDEN]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in columns) + " |" for row in report["rows"]]
    commit = (report["commit"] or "unknown")[:12] + "+" * (report["commit"] or "").endswith("+")  # +: changed since.
    busy = ", PROVISIONAL: other programs were running" if report["busy"] else ""
    about = f"`{report['command']}`, commit {commit}, {report['device']}, {report['time'][:10]}{busy}"
    return "\n".join([*lines, "", about + "".join(f"; {k} {_cell(v)}" for k, v in report["about"].items()) + "."])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")


if __name__ == "__main__":
    for path in PAGES:
        write(path, RESULTS)
