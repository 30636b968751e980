"""The official code's command line: every flag, and what it means train type by train type."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from shortcut_models import InputError, catalogue, runs
from shortcut_models.cli import evaluate, parsing, settings
from shortcut_models.config import FREE_TO_CHANGE, Config
from shortcut_models.config_json import to_json
from shortcut_models.data.images import FOUND
from shortcut_models.data.pipeline import batch_dataset
from shortcut_models.interop import flag_uses, flags
from shortcut_models.metrics.features import inception
from shortcut_models.presets import get_preset
from tests.codecs.vaes import write_small
from tests.interop.test_official import train_state, write

ROOT = Path(__file__).parents[2]

# Written down here, one by one, from the official code's train.py.
DEFAULTS = """
dataset_name=imagenet256 load_dir=None save_dir=None fid_stats=None seed=10 log_interval=1000 eval_interval=20000
save_interval=100000 batch_size=32 max_steps=1000000 debug_overfit=0 mode=train inference_timesteps=128
inference_generations=4096 inference_cfg_scale=1.0 model.lr=0.0001 model.beta1=0.9 model.beta2=0.999
model.weight_decay=0.1 model.use_cosine=0 model.warmup=0 model.dropout=0.0 model.hidden_size=64 model.patch_size=8
model.depth=2 model.num_heads=2 model.mlp_ratio=1 model.class_dropout_prob=0.1 model.num_classes=1000
model.denoise_timesteps=128 model.cfg_scale=4.0 model.target_update_rate=0.999 model.use_ema=0 model.use_stable_vae=1
model.sharding=dp model.t_sampling=discrete-dt model.dt_sampling=uniform model.bootstrap_cfg=0 model.bootstrap_every=8
model.bootstrap_ema=1 model.bootstrap_dt_bias=0 model.train_type=shortcut wandb.project=shortcut
wandb.name=shortcut_{dataset_name} wandb.run_id=None wandb.offline=False wandb.entity=None wandb.group=None
wandb.exp_prefix=None wandb.exp_descriptor=None wandb.unique_identifier= wandb.random_delay=0
"""
NETWORK = "--model.hidden_size 768 --model.patch_size 2 --model.depth 12 --model.num_heads 12 --model.mlp_ratio 4"
XL = "--model.hidden_size 1152 --model.patch_size 2 --model.depth 28 --model.num_heads 16 --model.mlp_ratio 4"
IMAGENET = (
    "--dataset_name imagenet256 --fid_stats data/imagenet256_fidstats_ours.npz --model.cfg_scale 1.5 "
    "--model.class_dropout_prob 0.1 --model.bootstrap_cfg 1 --batch_size 256 --max_steps 810_000 "
    "--model.train_type shortcut"
)
CELEBA = (
    "--dataset_name celebahq256 --fid_stats data/celeba256_fidstats_ours.npz --model.cfg_scale 0 "
    "--model.class_dropout_prob 1 --model.num_classes 1 --batch_size 64 --max_steps 410_000 --model.train_type shortcut"
)
SEED = {
    "celebahq256-b": f"{NETWORK} {CELEBA}",
    "imagenet256-b": f"{NETWORK} {IMAGENET}",
    "imagenet256-xl": f"{XL} {IMAGENET}",
}
"""The three commands of the official page."""


class LatentShape:
    """Stands for the published VAE, whose file is large: its shapes alone."""

    identity = "vae"

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        return (image[0] // 8, image[1] // 8, 4)


@pytest.fixture(autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden data sets as TFDS's root, and nothing of the machine's."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(ROOT / "tests/golden/data/tfds"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
    wandb = (f"WANDB_{name}" for name in ("PROJECT", "NAME", "RUN_GROUP", "ENTITY", "MODE", "RUN_ID", "RESUME"))
    for name in ("SHORTCUT_VAE", "SHORTCUT_INCEPTION", *wandb):
        monkeypatch.setenv(name, "")  # So that it is put back, whatever a command sets.
        monkeypatch.delenv(name)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    from shortcut_models.data.images import Images

    pixels: Any = Images.codec
    monkeypatch.setattr(Images, "codec", property(lambda self: LatentShape() if self.vae else pixels.fget(self)))


def translate(words: str, **changes: Any) -> Config:
    found = flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(words)) | changes
    flags.check(found)
    return flags.configuration(found)


def test_every_flag_has_the_default_of_the_official_code() -> None:
    assert " ".join(f"{name}={value}" for name, value in flags.FLAGS.items()).split(" ") == DEFAULTS.split()


def test_values_are_read_as_there() -> None:
    assert flags.read_flags(["-seed", "-3", "--nowandb.offline"]) == {"seed": -3, "wandb.offline": False}
    words = ["-max_steps=410_000", "--model.lr", "1e-3", "--wandb.offline", "--model.mlp_ratio=4"]
    assert flags.read_flags(words) == {
        "max_steps": 410_000,
        "model.lr": 1e-3,
        "wandb.offline": True,
        "model.mlp_ratio": 4.0,
    }


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("name", SEED)
def test_the_three_commands_are_the_presets(name: str) -> None:
    found, preset = to_json(translate(SEED[name])), to_json(get_preset(name))
    assert {k: v for k, v in found.items() if k not in FREE_TO_CHANGE - {"max_steps", "sharding"}} == {
        k: v for k, v in preset.items() if k not in FREE_TO_CHANGE - {"max_steps", "sharding"}
    }


def objective(words: str) -> dict[str, Any]:
    """The settings of the objective in which a command differs from the official code's constants."""
    config = translate(f"--dataset_name lsunchurch {words}", load_dir=None)
    kind = flags.TRAIN_TYPES[shlex.split(words)[1]].objective
    base = catalogue.find("objective", catalogue.OBJECTIVES, kind)
    known, there = parsing.settings(config.objective), parsing.settings(base)
    return {name: one.value for name, one in known.items() if one.value != there[name].value}


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("naive", {}),
        ("naive --model.class_dropout_prob .3", {"label_dropout": 0.3}),
        ("naive --model.cfg_scale 0", {"label_dropout": 1.0}),
        ("naive --model.cfg_scale 3 --model.bootstrap_cfg 1 --model.bootstrap_every 4", {}),
        ("naive --model.denoise_timesteps 64", {"times.grid": 64}),
        ("shortcut", {}),
        ("shortcut --model.cfg_scale 3", {}),
        ("shortcut --model.cfg_scale 3 --model.bootstrap_cfg 1", {"guidance": 3.0}),
        ("shortcut --model.bootstrap_cfg 1", {"guidance": 4.0}),
        ("shortcut --model.cfg_scale 0 --model.bootstrap_cfg 1", {"label_dropout": 1.0, "bootstrap_dropout": True}),
        ("shortcut --model.class_dropout_prob 1", {"label_dropout": 1.0}),
        ("shortcut --model.bootstrap_ema 0", {"target_decay": None}),
        ("shortcut --model.target_update_rate .99", {"target_decay": 0.99}),
        ("shortcut --model.bootstrap_every 4", {"share": 0.25}),
        ("shortcut --model.bootstrap_dt_bias 1", {"longer": True}),
        ("shortcut --model.denoise_timesteps 32", {"levels": 32, "times.grid": 32}),
        ("shortcut --objective.overlap 1", {"overlap": True}),
        ("livereflow", {"guidance": 4.0}),
        ("livereflow --model.cfg_scale 1.5 --model.bootstrap_ema 0", {"guidance": 1.5}),
        ("livereflow --model.cfg_scale 0", {"label_dropout": 1.0, "pair_dropout": True}),
        ("livereflow --model.bootstrap_every 16", {"share": 1 / 16, "guidance": 4.0}),
        ("consistency --model.class_dropout_prob .5 --model.cfg_scale 3 --model.bootstrap_ema 0", {}),
        ("consistency --model.cfg_scale 0", {"label_dropout": 1.0}),
        ("consistency --model.target_update_rate .9 --model.denoise_timesteps 8", {"target_decay": 0.9, "levels": 8}),
    ],
)
def test_what_a_train_type_reads(words: str, expected: dict[str, Any]) -> None:
    assert objective(f"--model.train_type {words}") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("progressive", {}),
        ("progressive --model.cfg_scale 2 --model.bootstrap_cfg 1 --model.class_dropout_prob .5", {"guidance": 2.0}),
        ("progressive --model.cfg_scale 0 --model.bootstrap_cfg 1", {"label_dropout": 1.0}),
        ("progressive --model.bootstrap_ema 0", {"teacher_weights": "raw"}),
        ("consistency-distillation --model.cfg_scale 2 --model.bootstrap_cfg 1", {}),
        ("consistency-distillation --model.target_update_rate .9", {"target_decay": 0.9}),
    ],
)
def test_what_a_distillation_reads(words: str, expected: dict[str, Any]) -> None:
    given = flags.FLAGS | flags.OURS | flags.read_flags(["--model.train_type", *words.split()])
    found = flags._objective(given)
    base = catalogue.find("objective", catalogue.OBJECTIVES, flags.TRAIN_TYPES[words.split()[0]].objective)
    known, there = parsing.settings(found), parsing.settings(base)
    assert {name: one.value for name, one in known.items() if one.value != there[name].value} == expected


@pytest.mark.usefixtures("published")
def test_the_rest_is_the_official_code_s() -> None:
    config = translate("--dataset_name celebahq256 --model.use_cosine 1 --model.warmup 7 --max_steps 90")
    assert (config.seed, config.batch_size, config.ema_decay) == (10, 32, 0.999)
    assert config.optimizer.decayed == "all"
    assert config.optimizer.weight_decay == 0.1
    assert (config.optimizer.schedule, config.optimizer.decay_steps, config.optimizer.warmup_steps) == ("cosine", 90, 7)
    network = parsing.settings(config.model)
    assert network["dtype"].value == "bfloat16"
    assert network["attention_scale"].value == "width"
    assert config.model.shape == (32, 32, 4)
    assert config.model.num_classes == 1000
    for name in ("celebahq256", ROOT / "tests/golden/data/imagefolder"):
        assert translate(f"--dataset_name {name} --model.use_stable_vae 0").model.shape == (256, 256, 3)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    "words",
    [
        *SEED.values(),
        "--model.train_type naive --dataset_name lsunchurch --model.denoise_timesteps 64",
        "--model.train_type livereflow --dataset_name celebahq256 --model.use_cosine 1 --model.num_classes 2",
        "--dataset_name digits --model.use_stable_vae 0 --model.patch_size 4 --model.num_classes 10",
        "--dataset_name my-imagenet256",
    ],
)
def test_the_printed_command_is_the_same_training(words: str) -> None:
    config = translate(words)
    printed = shlex.split(flags.equivalent(config))
    assert printed[:2] == ["shortcut", "train"]
    assert settings.resolve(printed[2], parsing.split(printed[3:]), []) == config


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--model.dropout .1", "--model.dropout 0.1 cannot be followed: the network has no dropout"),
        ("--model.t_sampling uniform", "declares this flag and does not read it"),
        ("--wandb.random_delay -1", "random_delay is -1, but must be at least 0"),
        ("--objective.overlap 1 --model.train_type livereflow", "is for --model.train_type shortcut: livereflow uses"),
        ("--objective.overlap 2", "--objective.overlap is 2, but must be 0 or 1"),
        ("--dataset_name celebahq256 --wandb.group a --wandb.exp_prefix b", "older name of --wandb.group: give one"),
        ("--dataset_name celebahq256 --wandb.name a --wandb.exp_descriptor b", "older name of --wandb.name: give one"),
        ("--dataset_name celebahq256 --wandb.run_id a --wandb.unique_identifier b", "names the run that goes on"),
        (
            "--dataset_name celebahq256 --wandb.name {datset}",
            "cannot be filled in \\('datset'\\): braces hold the name",
        ),
        ("--dataset_name celebahq256 --wandb.name {", "cannot be filled in"),
        ("--debug_overfit 2", "--debug_overfit is 2, but must be 0 or 1"),
        ("--debug_overfit 1 --batch_size 12", "--batch_size 12 is no multiple of 8"),
        ("--debug_overfit 1 --dataset_name digits --model.use_stable_vae 0", "the first images of files"),
        ("--mode interpolate", "--mode interpolate needs --load_dir"),
        ("--model.train_type magic", "the types are naive, shortcut"),
        ("--model.bootstrap_dt_bias 2", "bootstrap_dt_bias is 2, but must be 0 or 1"),
        ("--model.bootstrap_every 1", "must be at least 2"),
        ("--model.use_ema 2", "must be 0 or 1"),
        ("--model.hiden_size 3", "did you mean"),
        ("--max_steps many", "--max_steps many must be a whole number"),
        ("runs/x", "everything is a flag"),
        ("--dataset_name photos/imagenet256", "'photos/imagenet256' are neither a name nor a path"),
        ("--dataset_name prepared:my-latents", "my-latents"),
        ("--dataset_name imagenet256-missing/x", "neither a name nor a path"),
        ("--dataset_name imagenet256-latent", "`shortcut prepare SOURCE OUT --size 256"),
        ("--dataset_name digits", "or give --model.use_stable_vae 0"),
        (
            "--load_dir nowhere --dataset_name digits --model.use_stable_vae 0",
            "nowhere is not there: name a run",
        ),
        ("--mode inference", "needs --load_dir, the run or checkpoint to draw from"),
        ("--mode inference --load_dir nowhere", "run folder nowhere does not exist"),
    ],
)
@pytest.mark.usefixtures("published")
def test_what_cannot_be_followed_is_refused(words: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        flags.run(shlex.split(words))
    assert str(refused.value).count("\n") == 0


def test_a_flag_that_a_train_type_does_not_read_is_told_in_one_line(tmp_path: Path) -> None:
    given = flags.read_flags(["--model.train_type", "consistency", "--model.class_dropout_prob", ".5"])
    assert flags.remarks(flags.FLAGS | flags.OURS | given, given) == [
        "--model.class_dropout_prob 0.5: --model.train_type consistency does not read it, in the official code neither."
    ]
    given = {"fid_stats": str(tmp_path / "stats.npz")}
    told = flags.remarks(flags.FLAGS | flags.OURS | given, given)
    assert f"--fid_stats {given['fid_stats']}: no FID is computed, for the file is not there." == told[0]
    assert "every image of a batch is used once" in told[1]
    assert "--objective.overlap 1" in told[1]
    for words in (["--objective.overlap", "1"], ["--model.train_type", "livereflow"], ["--model.train_type", "naive"]):
        other = flags.read_flags(words)
        assert flags.remarks(flags.FLAGS | flags.OURS | other, other) == []
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(InputError, match=r"is no \.npz with `mu` of 2048 and `sigma` of 2048 x 2048 numbers"):
        flags.check(flags.FLAGS | flags.OURS | given)


def test_a_run_is_gone_on_with_or_is_what_training_starts_from(trained: Path) -> None:
    words = f"--dataset_name digits --model.use_stable_vae 0 --model.patch_size 4 --load_dir {trained}"
    for more, starts, folder in [
        ("", "", trained),
        ("--save_dir runs/other", str(trained), Path("runs/other")),
        ("--model.train_type progressive --save_dir runs/other", str(trained), Path("runs/other")),
    ]:
        found = flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(f"{words} {more}"))
        config = flags.configuration(found)
        assert (config.start_from, flags.run_folder(found, config)) == (starts, folder)
    found = flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(f"{words} --save_dir x --wandb.run_id y"))
    with pytest.raises(InputError, match="which a run of ours does in its own folder and with its own method"):
        flags.configuration(found)
    found = flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(f"{words} --model.train_type progressive"))
    config = flags.configuration(found)
    assert config.start_from == str(trained)
    assert flags.run_folder(found, config).name.startswith("digits-progressive-")


def test_the_folder_tells_settings_apart_but_not_how_long_or_where_they_run() -> None:
    def name(words: str) -> str:
        given = "--dataset_name digits --model.use_stable_vae 0 --model.patch_size 4 " + words
        found = flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(given))
        return flags.run_folder(found, flags.configuration(found)).name

    assert name("") == name("--max_steps 7 --model.sharding fsdp --save_interval 3")
    assert len({name(""), name("--seed 3"), name("--model.lr 1e-3"), name("--model.cfg_scale 0")}) == 4


SMALL = "--max_steps 2 --batch_size 8 --model.hidden_size 16 --model.patch_size 8 --model.depth 1 --model.num_heads 2"


def main(words: list[str]) -> int:
    with jax.numpy_dtype_promotion("standard"):  # JAX's own attention mixes bfloat16 with float32.
        return flags.main(words)


def test_the_celeba_command_trains_goes_on_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wandb: list[Any]
) -> None:
    monkeypatch.setenv("SHORTCUT_VAE", str(write_small(tmp_path / "vae")))
    monkeypatch.chdir(tmp_path)
    words = [*SEED["celebahq256-b"].split(), *SMALL.split()]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    folder = Path(lines[0].removeprefix("run folder: "))
    assert folder.parent == Path("runs")
    assert folder.name.startswith("celebahq256-shortcut-")
    assert "--fid_stats data/celeba256_fidstats_ours.npz: no FID is computed, for the file is not there." in lines
    assert runs.latest(folder) == 2
    config = runs.read_config(folder)
    assert parsing.settings(config.data)["vae"].value == FOUND
    assert config.model.shape == (32, 32, 4)
    printed = next(line for line in lines if line.startswith("the same as: "))
    again = shlex.split(printed.removeprefix("the same as: shortcut train "))
    line = parsing.split(again[1:])
    assert line.take("run_dir") == str(folder)
    given = {name: line.take(name) for name in ("validate_every", "figures_every", "evaluate_weights")}
    assert given == {"validate_every": "8000", "figures_every": "160000", "evaluate_weights": "raw"}
    told = settings.resolve(again[0], line, [])
    assert replace(told, max_steps=2, data=told.data.recorded()) == config
    # The run keeps to its VAE, whichever is found.
    monkeypatch.setenv("SHORTCUT_VAE", str(write_small(tmp_path / "other", seed=1)))
    with pytest.raises(InputError, match=r"is the VAE .* but the VAE .* encodes these data: name its file"):
        runs.read_shown(folder).codec.ready()
    assert main([*words, "--max_steps", "3"]) == 2
    assert "data.vae_identity: " in capsys.readouterr().err
    monkeypatch.setenv("SHORTCUT_VAE", str(tmp_path / "vae"))

    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(row)["loss"]) for row in rows)
    capsys.readouterr()
    told = ["--wandb.project", "mine", "--wandb.name", "{dataset_name}-{hidden_size}", "--wandb.offline"]
    waited: list[float] = []
    monkeypatch.setattr(flags, "time", SimpleNamespace(sleep=waited.append))
    delay = ["--wandb.random_delay", "1000"]
    assert main([*words, "--max_steps", "3", "--load_dir", str(folder), *told, *delay]) == 0
    assert len(waited) == 1
    assert 0 <= waited[0] <= 1000
    assert runs.latest(folder) == 3
    assert "the same as: WANDB_PROJECT=mine WANDB_NAME=celebahq256-16 WANDB_MODE=offline shortcut train " in (
        found := capsys.readouterr().out
    )
    assert "--tracker wandb" in found
    (opened,) = [call for call in wandb if isinstance(call, dict) and "project" in call]
    assert (opened["project"], opened["name"], opened["resume"]) == ("mine", "celebahq256-16", "allow")
    (row,) = [call for call in wandb if isinstance(call, dict) and "training/loss" in call]
    assert row["step"] == 3
    assert {"training/loss_flow", "training/loss_bootstrap", "training/grad_norm", "training/lr"} <= row.keys()

    draw = ["--mode", "inference", "--load_dir", str(folder), "--inference_timesteps", "1"]
    draw += ["--inference_generations", "3", "--batch_size", "2", "--save_dir", str(tmp_path / "drawn")]
    with pytest.raises(InputError, match=r"--model\.depth is 3, but 1 in runs/celebahq256-.*: give that, or leave"):
        flags.run([*draw, "--model.depth", "3"])
    with pytest.raises(InputError, match=r"--model\.train_type naive is not how runs/celebahq256-"):
        flags.run([*draw, "--model.train_type", "naive"])
    # The file of statistics is measured with, in the words and by the metric of `shortcut evaluate`.
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(InputError, match="asks for FID, but the weights of Inception are not in"):
        flags.run([*draw, "--fid_stats", str(tmp_path / "stats.npz")])
    assert not (tmp_path / "drawn").exists()
    monkeypatch.setattr(inception, "find_inception", lambda *_: None)
    measured: list[Any] = []
    report = json.dumps({"steps": {"1": {"fid-paper-2": 3.5, "other": 1}}})
    write = lambda words: Path(words[words.index("--out") + 1]).write_text(report)  # noqa: E731
    monkeypatch.setattr(evaluate, "run", lambda *given: measured.append(given) or write(given[0]) * 0)
    unread = ["--max_steps", "9", "--model.cfg_scale", "0", "--model.use_ema", "0", "--dataset_name", "lsunchurch"]
    assert main([*draw, "--fid_stats", str(tmp_path / "stats.npz"), *unread]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    found = capsys.readouterr().out
    assert "--max_steps, --model.cfg_scale, --dataset_name: not read in --mode inference." in found
    assert "the same as: shortcut evaluate " in found and found.endswith("\nFID is 3.5 (fid-paper-2)\n")
    ((asked, model),) = measured
    wish = parsing.parse(evaluate.Evaluate, "evaluate", asked)
    assert (wish.target, wish.steps, wish.count, wish.weights) == (str(folder), "1", 2, "raw")
    assert (wish.metrics, wish.stats, wish.stats_protocol) == (("fid-paper",), tmp_path / "stats.npz", "paper")
    assert (model.step, model.weights) == (3, "raw")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a stand-in for the wandb package is given."""
    calls: list[Any] = []

    class Run:
        def define_metric(self, *_: Any, **__: Any) -> None: ...

        def log(self, row: dict[str, Any]) -> None:
            calls.append(row)

        def finish(self) -> None: ...

    def init(**options: Any) -> Run:
        calls.append(options)
        return Run()

    module: Any = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_a_checkpoint_of_the_official_code_is_drawn_from_as_its_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHORTCUT_VAE", str(write_small(tmp_path / "vae")))
    file = write(tmp_path / "model.ckpt", train_state())

    def draw(words: str, name: str) -> str:
        given = flags.read_flags(
            shlex.split(f"{words} --mode inference --load_dir {file} --save_dir {tmp_path / name}")
        )
        small = {"inference_timesteps": 2, "inference_generations": 2, "batch_size": 2}
        found = flags.FLAGS | flags.OURS | given | small
        flag_uses.draw(found, given, flags._objective(found), lambda: 8)
        return capsys.readouterr().out

    with pytest.raises(InputError, match="its tensors do not tell the attention heads"):
        draw("", "none")
    with pytest.raises(InputError, match=r"--model\.depth is 3, but 2 in"):
        draw("--model.num_heads 4 --model.depth 3", "none")
    assert (
        f"the same as: shortcut import {file} model.ckpt-model --image-size 8 --weights raw --train-type shortcut "
        "--num-heads 4\nthe same as: shortcut sample model.ckpt-model --count 2 --weights raw --steps 2 --seed 10 "
        "--guidance 1.0 --labels random "
    ) in draw("--model.num_heads 4", "labelled")
    unlabelled = "--model.cfg_scale 0 --model.class_dropout_prob 1 --inference_cfg_scale 3"
    assert "--guidance 1.0 --labels none" in draw(f"--model.num_heads 4 {unlabelled}", "unlabelled")
    # Other train types embed index 0 whatever the step size, as `shortcut` does in one step alone.
    draw("--model.num_heads 4 --model.train_type naive", "naive")
    pixels = [np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / n).iterdir())]) for n in DRAWN]
    assert (pixels[0] != pixels[1]).any()
    assert (pixels[0] != pixels[2]).any()


DRAWN = ("labelled", "unlabelled", "naive")


def test_measuring_in_training_is_the_official_code_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    common = f"--dataset_name celebahq256 --model.use_stable_vae 0 --batch_size 8 --fid_stats {tmp_path / 'stats.npz'}"

    def found(words: str) -> dict[str, str]:
        given = flags.FLAGS | flags.OURS | flags.read_flags(shlex.split(f"{common} {words}"))
        return flag_uses.flags_of(flag_uses.during(given, flags.configuration(given)))

    usual = {"validate_every": "8000", "figures_every": "160000", "evaluate_weights": "raw"}
    assert found("--fid_stats data/not_there.npz") == usual
    refused = r"^--fid_stats .*stats\.npz asks for FID, but the weights of Inception are not in .*; without --fid_stats"
    with pytest.raises(InputError, match=refused):
        found("")
    # Nothing is trained, and no folder made, before that is known.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=refused):
        flags.run(shlex.split(common))
    assert [path.name for path in tmp_path.iterdir()] == ["stats.npz"]
    monkeypatch.setattr(inception, "find_inception", lambda *_: None)
    stats = {"metrics": "fid-paper", "stats": str(tmp_path / "stats.npz"), "stats_protocol": "paper"}
    usual |= stats | {"evaluate_every": "160000"}
    assert found("") == usual | {"evaluate_guidance": "4.0"}
    assert found("--model.cfg_scale 0 --model.use_ema 1") == {k: v for k, v in usual.items() if k != "evaluate_weights"}
    assert found("--model.train_type consistency") == usual
    assert found("--eval_interval 3 --log_interval 2 --model.cfg_scale 1.5") == usual | {
        "evaluate_every": "24",
        "figures_every": "24",
        "validate_every": "16",
        "evaluate_guidance": "1.5",
    }


def test_overfitting_is_to_the_first_eight_images_unmirrored() -> None:
    words = "--dataset_name imagenet256 --model.use_stable_vae 0 --debug_overfit 1"
    source = translate(f"{words} --batch_size 16").data.open()
    assert (len(source), getattr(source, "mirror", None)) == (8, None)
    # Every batch is the same, but for the order: times and noise alone are drawn anew.
    batches = batch_dataset(source, 16, seed=1)
    sums = [np.sort(batches[k]["image"].astype(int).sum(axis=(1, 2, 3))) for k in (0, 5)]
    np.testing.assert_array_equal(sums[0], sums[1])
    np.testing.assert_array_equal(sums[0][::2], sums[0][1::2])
    assert len(translate(f"{words} --batch_size 5").data.open()) == 5
