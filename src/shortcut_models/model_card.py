"""The model card of a model folder, and what it tells beyond the configuration: measured quality, and rounding."""

import json
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shortcut_models import catalogue
from shortcut_models.errors import InputError
from shortcut_models.model import Model

SAMPLED_BY = catalogue.OBJECTIVES | catalogue.SAMPLERS
PROBES = 8

HERE = "  # This folder, or its owner/name on the hub."
"""What the card says beside the call that loads its model."""

CARD_TEXT = """\
---
library_name: shortcut-models
{front}tags:
- flow-matching
- image-generation
---

# {name}

A generative model that is sampled in any number of network calls.

| | |
|---|---|
{table}

## How to sample

```python
from shortcut_models import load
model = {load}{here}
images = model.decode(model.sample(model.balanced_labels(8), steps=4))
```

## Measured quality

{quality}

## Licence

{licence}
"""


def load_line(name: str) -> str:
    """The call that loads a model of this name, as the card has it."""
    return f"load({json.dumps(name, ensure_ascii=False)})"


def card(config: dict[str, Any], name: str) -> str:
    """The model card: README.md with the front matter that the hub reads."""
    network, objective, shows = (config[part]["kind"] for part in ("network", "objective", "shows"))
    rows = {
        "network": _sentence(network, config["network"]),
        "objective": f"{objective} ({SAMPLED_BY[objective].about})",
        "data": f"{shows} ({catalogue.DATA[shows].about})",
        "codec": config["codec"]["identity"] or "latents of Stable Diffusion's VAE; which one is not recorded",
        "classes": _classes(config),
        "steps of training": config["step"] or "not recorded",
        "weights": f"{config['weights']}, {config['dtype']}",
        "SHA-256": f"`{config['sha256']}` (of model.safetensors)",
    }
    rows |= {name: value for name, value in config["about"].items() if name not in rows}
    licence = config["license"]
    return CARD_TEXT.format(
        name=_cell(name),
        load=load_line(name),
        here=HERE,
        front=f"license: {licence}\n" if licence else "",
        table="\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items()),
        quality=_quality(config["quality"]),
        licence=f"{licence}." if licence else "Not stated: it follows from that of the data and of earlier weights.",
    )


def quality_of(model: Model, report: dict[str, Any] | None, dtype: str = "float32") -> dict[str, Any]:
    """What of a report of `shortcut evaluate` is worth keeping; nothing if it is of other weights than the model's.

    `dtype` is what the weights are rounded to, which the card says.
    """
    try:
        protocol = (report or {}).get("protocol", {})
        if not report or (protocol.get("step"), protocol.get("weights")) != (model.step, model.weights):
            return {}
        if protocol.get("model", "") not in ("", model.fingerprint(), model.fingerprint(exact=True)):
            return {}
        found = {name: report[name] for name in ("protocol", "steps", "real", "commit", "device") if name in report}
        found = json.loads(json.dumps(found), parse_constant=lambda _: None)  # JSON has no NaN, which may be measured.
        found["protocol"] = without_paths(found["protocol"])
        if dtype != "float32":
            found["protocol"]["rounded_since"] = dtype
        _quality(found)
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError):
        raise InputError(
            "the report of its quality is not as `shortcut evaluate` writes it: evaluate again, or remove report.json."
        ) from None
    return found


def without_paths(protocol: dict[str, Any]) -> dict[str, Any]:
    """The protocol of a report without what only its own machine knows: where the run lay, and the statistics."""
    kept = {name: value for name, value in protocol.items() if name != "target"}
    return kept | ({"stats": PurePath(kept["stats"]).name} if isinstance(kept.get("stats"), str) else {})


def rounding_effect(model: Model, dtype: np.dtype) -> str:
    """How far velocities move when the parameters are rounded to `dtype`, in a sentence.

    Relative to the largest velocity, over inputs between noise at t=0 and t=1, at d=0 and at the length of a jump of
    one step; the arithmetic is float32.
    """
    network, d = model.network.exact(), float(model.objective.jumps(1).d[0])
    x, label = jnp.asarray(model.noise(0, 0, PROBES)), jnp.asarray(model.balanced_labels(PROBES))
    t = jnp.linspace(0, 1, PROBES, dtype=jnp.float32)

    @jax.jit
    def distance(params: Any) -> jax.Array:
        rounded = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(leaf.dtype), params)
        moved = largest = jnp.float32(0)
        for step in (0.0, d):
            whole, half = (
                network.apply(p, x, t, jnp.full(PROBES, step, jnp.float32), label) for p in (params, rounded)
            )
            moved, largest = (jnp.maximum(a, jnp.abs(b).max()) for a, b in ((moved, half - whole), (largest, whole)))
        return moved / jnp.maximum(largest, 1e-30)

    share = float(distance(model.params))
    told = f"d=0 and d={d:g}" if d else "d=0"
    return f"rounding moves velocities by up to {100 * share:.2g} % of the largest ({PROBES} inputs, {told})"


def _quality(found: dict[str, Any]) -> str:
    """A table of a report, with its protocol."""
    if not found:
        return "None is recorded here: `shortcut evaluate` measures it, with the protocol in every number's name."
    protocol, names = found["protocol"], list(next(iter(found["steps"].values())))
    rows = [*found["steps"].items(), ("real data", found["real"])]
    lines = [f"| steps | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    lines += [
        f"| {steps} | {' | '.join(f'{values[name]:.4g}' if values.get(name) is not None else '' for name in names)} |"
        for steps, values in rows
    ]
    told = f"{protocol['count']} samples a budget, guidance {protocol['guidance']:g}, seed {protocol['seed']}"
    since = f", before they were rounded to {protocol['rounded_since']}" if protocol.get("rounded_since") else ""
    return "\n".join([*lines, "", f"By `shortcut evaluate`: {told}, weights {protocol['weights']}{since}."])


def _classes(config: dict[str, Any]) -> Any:
    """How many there are, whatever the data have, if the model was trained on their labels at all."""
    if config["objective"].get("label_dropout") == 1:
        return "none: trained without labels"
    return config["network"].get("num_classes", 0)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "/").split())


def _sentence(kind: str, fields: dict[str, Any]) -> str:
    """A network's kind and fields in a line."""
    return f"{kind} ({', '.join(f'{name} {value}' for name, value in fields.items() if name != 'kind')})"
