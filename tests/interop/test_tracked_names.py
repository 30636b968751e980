"""What the official code tells W&B."""

import shlex

import pytest

from shortcut_models.interop import flags
from shortcut_models.interop.tracked_names import variables


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--wandb.offline 0", {}),
        ("--wandb.project p --wandb.entity e", {"PROJECT": "p", "ENTITY": "e"}),
        ("--wandb.exp_prefix g --wandb.exp_descriptor {model[depth]}-{seed}", {"RUN_GROUP": "g", "NAME": "2-10"}),
        ("--wandb.group g --wandb.exp_prefix g --wandb.offline", {"RUN_GROUP": "g", "MODE": "offline"}),
        ("--wandb.name x --wandb.unique_identifier 7", {"NAME": "x", "RUN_ID": "x_7"}),
        ("--wandb.run_id a1b2", {"RUN_ID": "a1b2", "RESUME": "must"}),
    ],
)
def test_wandb_s_flags_are_its_own_variables(words: str, expected: dict[str, str]) -> None:
    found = variables(flags.FLAGS | flags.read_flags(shlex.split(words)))
    usual = {"PROJECT": "shortcut", "NAME": "shortcut_imagenet256"}
    assert found == {f"WANDB_{name}": value for name, value in (usual | expected).items()}
