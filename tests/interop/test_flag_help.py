"""What train.py says: its help, and its refusals in the official code's flags."""

import re

import pytest

from shortcut_models.interop import flag_help, flags


def test_without_flags_the_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert flags.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  --{re.escape(name)} +\w", shown, re.M) for name in flags.FLAGS | flags.OURS)
    assert set(flag_help.ABOUT) == set(flags.FLAGS | flags.OURS)
    assert "Images per step, over all devices. (32)\n" in shown


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("give it with --data.vae or SHORTCUT_VAE.", "give it with SHORTCUT_VAE."),
        (
            "model.num_classes is 1: set --model.num-classes 2, or --objective.label-dropout 1 "
            "--objective.bootstrap-dropout 1 to train without labels.",
            "--model.num_classes is 1: set --model.num_classes 2, or --model.cfg_scale 0 to train without labels.",
        ),
        (
            "name it with --start-from, or choose another --run-dir.",
            "name it with --load_dir, or choose another --save_dir.",
        ),
        (
            "say whose, --latents edm2 or --latents repa.",
            "say whose, --dataset_name edm2-latents:PATH or --dataset_name repa-latents:PATH.",
        ),
        (
            "runs/batch_size/max_steps.x and /model.depth are no flags, as in `shortcut pairs RUN --out max_steps`.",
            "runs/batch_size/max_steps.x and /model.depth are no flags, as in `shortcut pairs RUN --out max_steps`.",
        ),
        (
            "guidance is 3.0, but (objective.label_dropout 0), which guidance pushes away from: use guidance 1.",
            "--inference_cfg_scale is 3.0, but (--model.class_dropout_prob 0), which guidance pushes away from: use "
            "--inference_cfg_scale 1.",
        ),
        ("batch_size 30 is not a multiple of 4 device(s)", "--batch_size 30 is not a multiple of 4 device(s)"),
        (
            "x holds the weights ema, not raw ones: leave --weights out.",
            "x holds the weights ema, not raw ones: give --model.use_ema 1.",
        ),
        ("or learn from pixels (--data.vae '').", "or learn from pixels (--model.use_stable_vae 0)."),
        ("runs/a--b-c is damaged: raise --max-steps.", "runs/a--b-c is damaged: raise --max_steps."),
    ],
)
def test_refusals_name_the_official_code_s_flags(ours: str, theirs: str) -> None:
    assert flag_help.in_their_words(ours) == theirs


def test_an_unknown_flag_is_named_as_it_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert flags.main(["--batch_sise", "3"]) == 2
    assert "--batch_sise is unknown: did you mean --batch_size?" in capsys.readouterr().err
