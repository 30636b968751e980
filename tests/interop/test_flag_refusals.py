"""What train.py refuses: in one sentence, with exit status 2, in the flags that were typed and whatever the mode."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from shortcut_models.config import check_fits
from shortcut_models.interop import flags
from shortcut_models.prepare import prepare

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "tests/golden/data/imagefolder"
DIGITS = "--dataset_name digits --model.use_stable_vae 0 --model.patch_size 4 --model.num_classes 10"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert flags.main(shlex.split(words)) == 2
    return capsys.readouterr().err.removeprefix("shortcut: ").removesuffix("\n")


OUT_OF_RANGE = {
    "--batch_size 0": "--batch_size is 0, but must be at least 1.",
    "--batch_size -2": "--batch_size is -2, but must be at least 1.",
    "--inference_timesteps 0": "--inference_timesteps is 0, but must be at least 1.",
    "--inference_generations -5": "--inference_generations is -5, but must be at least 1.",
    "--eval_interval -1": "--eval_interval is -1, but must be at least 0.",
    "--log_interval 0": "--log_interval is 0, but must be at least 1.",
    "--seed -3": "--seed is -3, but must be at least 0.",
    "--model.lr 0": "--model.lr is 0.0, but must be above 0.",
    "--model.beta2 1": "--model.beta2 is 1.0, but must be below 1.",
    "--model.class_dropout_prob 1.5": "--model.class_dropout_prob is 1.5, but must be at most 1.",
    **{
        f"--{name} gs://b/x": f"--{name} gs://b/x lies on a remote store, which is not read or written: copy it to "
        "this machine, or mount it."
        for name in ("save_dir", "fid_stats", "inception")
    },
    "--model.denoise_timesteps 100": (
        "--model.denoise_timesteps is 100, but must be a power of two from 2 to 1,048,576, such as 128."
    ),
}


@pytest.mark.parametrize("mode", ["train", "inference", "interpolate"])
@pytest.mark.parametrize("words", OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_in_every_mode(
    words: str, mode: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(f"{DIGITS} --load_dir {trained} {words} --mode {mode}", capsys) == OUT_OF_RANGE[words]


def test_a_remote_run_is_told_as_it_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(f"{DIGITS} --load_dir gs://b/run", capsys).startswith("--load_dir gs://b/run lies on a remote store")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "--model.warmup 10 --model.use_cosine 1 --max_steps 1",
            "--max_steps is 1, but must be above --model.warmup 10, after which --model.use_cosine 1 lets the learning "
            "rate fall: train longer, or warm up in fewer steps.",
        ),
        (
            "--model.bootstrap_every 1000",
            "--model.bootstrap_every 1000 lets one image in 1000 learn jumps and the others the velocity, but "
            "--batch_size 32 has none for one of the two: raise --batch_size, or lower --model.bootstrap_every.",
        ),
        (
            "--model.bootstrap_every 64 --model.train_type livereflow",
            "--model.bootstrap_every 64 lets one image in 64 learn jumps and the others the velocity, but "
            "--batch_size 32 has none for one of the two: raise --batch_size, or lower --model.bootstrap_every.",
        ),
        (
            "--model.class_dropout_prob 0 --model.train_type livereflow",
            "--model.cfg_scale is 4.0, but with --model.class_dropout_prob 0 the network never learns to answer "
            "without a label, which guided targets need: use --model.cfg_scale 1, or drop some labels.",
        ),
        (
            "--model.class_dropout_prob 1 --model.bootstrap_cfg 1",
            "--model.cfg_scale is 4.0, but with --model.class_dropout_prob 1 the network never learns to answer "
            "for a label, which guided targets need: use --model.cfg_scale 1, or drop fewer labels.",
        ),
        (
            "--model.denoise_timesteps 256",
            "--model.denoise_timesteps is 256, but this network takes steps of 1/128 and below for d=0, so that two "
            "step sizes would be one input: use at most 128 levels.",
        ),
        (
            "--model.train_type progressive",
            "--model.train_type progressive distils a trained flow: train one with --model.train_type naive, and name "
            "its run folder with --load_dir.",
        ),
        ("--model.hidden_size 63", "--model.hidden_size 63 must be a multiple of 4 and of --model.num_heads (2)."),
        ("--max_steps 9_999_999_999", "--max_steps is 9999999999, but must be at most 2147483647."),
        ("--seed 9_999_999_999", "--seed is 9999999999, but must lie between 0 and 4294967295."),
        (
            "--dataset_name points",
            "--dataset_name points: its items are 2 numbers, but the official code's network takes square images: name "
            "others.",
        ),
        (
            "--dataset_name points --model.use_stable_vae 1",
            "--dataset_name points: its items are 2 numbers, but the official code's network takes square images: name "
            "others.",
        ),
        ("--dataset_name folder", "data 'folder' name only a way to read a path: say which path, folder:PATH."),
    ],
)
def test_a_refusal_speaks_of_the_flags_that_were_typed(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(f"{DIGITS} {words}", capsys) == sentence
    assert not Path("runs").exists()


@pytest.mark.parametrize("kind", ["shortcut", "naive", "consistency", "livereflow --model.cfg_scale 1"])
def test_advice_for_other_classes_than_the_data_s_works(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"{DIGITS} --save_dir run --model.num_classes 1 --model.train_type {kind}"
    every = "" if kind == "naive" else " --model.class_dropout_prob 1"  # Which for naive is without labels already.
    assert refusal(words + every, capsys) == (
        "the data have 10 classes, but --model.num_classes is 1: set --model.num_classes 10, or --model.cfg_scale 0 to "
        "train without labels."
    )
    for advice in ("--model.num_classes 10", "--model.cfg_scale 0"):
        given = flags.read_flags(shlex.split(f"{words}{every} {advice}"))
        check_fits(flags.configuration(flags.FLAGS | flags.OURS | given))


def test_a_run_of_other_settings_is_told_in_flags(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = refusal(f"{DIGITS} --save_dir {trained} --model.lr 7", capsys).splitlines()
    assert lines[0] == f"{trained} holds a run with other settings; use those, or another --save_dir:"
    assert any(line.startswith("  --model.lr: ") and line.endswith(" in the run, 7.0 now") for line in lines)
    assert any(line.startswith("  1 / --model.bootstrap_every: ") for line in lines)


def test_what_is_drawn_needs_a_place_of_its_own(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"--mode inference --load_dir {trained} --inference_generations 2 --batch_size 2 --save_dir"
    Path("there.png").touch()
    assert refusal(f"{words} there.png", capsys) == (
        "there.png exists already: choose another --save_dir, or remove it first."
    )
    assert refusal(f"{words} drawn.1", capsys) == (
        "--save_dir drawn.1 must end in .png or .npz, or be a folder, whose name has no ending."
    )


def test_latents_are_not_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    prepare(str(IMAGES), Path("stored"), size=8)
    manifest = json.loads(Path("stored/manifest.json").read_text())
    manifest |= {"kind": "latents", "shape": [1, 1, 4], "vae": "0" * 64, "mirrored": False}
    Path("stored/manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert refusal("--dataset_name stored --model.use_stable_vae 0", capsys) == (
        "--model.use_stable_vae 0 trains on pixels, but --dataset_name stored holds latents: leave it out, or name the "
        "images."
    )


@pytest.mark.parametrize(("name", "flip"), [("imagenet256", True), ("celebahq256", True), ("lsunchurch", False)])
def test_images_are_mirrored_as_the_official_code_mirrors_data_of_that_name(name: str, flip: bool) -> None:
    shutil.copytree(IMAGES, f"my-{name}")
    prepare(str(IMAGES), Path(f"{name}-stored"), size=256)
    for place in (f"my-{name}", f"folder:my-{name}", f"{name}-stored"):
        words = f"--dataset_name {place} --model.use_stable_vae 0"
        config = flags.configuration(flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(words)))
        assert (getattr(config.data.open(), "mirror", None) is not None) == flip
        assert ("--data.flip 1" in flags.equivalent(config)) == flip


def test_latents_are_mirrored_if_their_mirror_images_were_encoded() -> None:
    prepare(str(IMAGES), Path("imagenet256"), size=8)
    manifest = json.loads(Path("imagenet256/manifest.json").read_text())
    for mirrored, flip in ((True, True), (False, None)):
        latents = {"kind": "latents", "shape": [1, 1, 4], "vae": "0" * 64, "mirrored": mirrored}
        Path("imagenet256/manifest.json").write_text(json.dumps(manifest | latents))
        given = flags.read_flags(shlex.split("--dataset_name ./imagenet256 --model.patch_size 1"))
        assert getattr(flags.configuration(flags.FLAGS | flags.OURS | given).data, "flip", None) == flip


def test_what_a_mode_does_not_read_is_told_in_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(words: str) -> list[str]:
        given = flags.read_flags(shlex.split(words))
        return flags.remarks(flags.FLAGS | flags.OURS | given, given)

    assert "--inference_timesteps, --inference_cfg_scale: not read in --mode train." in told(
        "--inference_timesteps 4 --inference_cfg_scale -1"
    )
    assert "--inception file.pth: no FID is computed, for --fid_stats is not given." in told("--inception file.pth")
    assert "--any_inception 1: no FID is computed, for --fid_stats is not given." in told("--any_inception 1")
    Path("rows.png").touch()
    words = (
        f"--mode interpolate --load_dir {trained} --inference_generations 4 --inception file.pth --save_dir rows.png"
    )
    assert flags.main(shlex.split(words)) == 2
    assert capsys.readouterr().out == "--inference_generations, --inception: not read in --mode interpolate.\n"
