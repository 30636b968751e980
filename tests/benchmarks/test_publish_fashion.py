"""The page of the comparison on Fashion-MNIST is made from what the comparison left."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.publish_fashion import publish
from shortcut_models.compare import table


def report(name: str, seed: int, value: float) -> dict[str, Any]:
    return {
        "objective": name,
        "seed": seed,
        "steps": {"1": {"frechet-10": value}},
        "ratio": {"1": {"frechet-10": value / 2}},
        "real": {"frechet-10": 2.0},
        "meant_for": {"1": True},
        "flops": 6,
        "images": 3,
        "settings": {"base": {"batch_size": 2}},
        "cost": [{"what": f"training {name}-seed-{seed}", "images": 6, "seconds": 1e9}],  # A busy machine's clock.
        "seconds": 1e9,
    }


@pytest.mark.parametrize("name", ["fashion", "fashion-whole"])
def test_the_page_gets_the_table_of_all_reports(tmp_path: Path, name: str) -> None:
    run, docs, results = (tmp_path / name for name in ("run", "docs", "results"))
    for folder in (run, docs, results):
        folder.mkdir()
    found = {name: [report(name, seed, 1.0 + seed) for seed in (0, 1)] for name in ("flow-matching", "shortcut")}
    for method, reports in found.items():
        for one in reports:
            (run / f"{method}-seed-{one['seed']}.json").write_text(json.dumps(one))
    (run / "samples.png").write_bytes(b"samples")
    per_step = {"flow-matching": 20.0, "shortcut": 40.0}
    (results / "fashion-time.json").write_text(json.dumps({"seconds_per_step": per_step}))
    (docs / "results.md").write_text(f"Before\n<!-- {name} -->\nold\n<!-- /{name} -->\nAfter\n")
    publish(run, docs, results, name)
    page = (docs / "results.md").read_text()
    shown = page.removeprefix(f"Before\n<!-- {name} -->\n").removesuffix(f"\n<!-- /{name} -->\nAfter\n")
    for method, reports in found.items():
        for one in reports:
            one["cost"][0]["seconds"] = one["seconds"] = 3 * per_step[method]
    assert shown == table(found, [1]).strip()
    assert "1.0 min" in shown
    assert "2.0 min" in shown
    assert json.loads((results / f"{name}.json").read_text()) == found
    assert (docs / f"results-{name}-samples.png").read_bytes() == b"samples"
