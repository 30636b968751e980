"""Model folders: what is written, what comes back, and what is refused."""

import errno
import inspect
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import jax
import ml_dtypes
import numpy as np
import pytest

from shortcut_models import InputError, catalogue, choice_json, cli, load, model_folder, sharding, starting, weights
from shortcut_models.config import Config
from shortcut_models.data import choose
from shortcut_models.data.folder import Folder
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.interop import hub
from shortcut_models.interop.safetensors_file import read_safetensors
from shortcut_models.model import Model
from shortcut_models.model_folder import from_pretrained, is_model_folder, push_to_hub, save_pretrained
from tests.codecs import vaes
from tests.data.source_files import write
from tests.interop.hub_server import Hub, serving


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(a), jax.device_get(b))))


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "digits"
    assert cli.main(["export", str(trained), str(out)]) == 0
    return out


def test_a_run_comes_back_whole(trained: Path, exported: Path) -> None:
    run, model = load(trained), load(exported)
    assert same(run.params, model.params)
    assert (model.network, model.objective, model.data) == (run.network, run.objective, run.data)
    assert (model.step, model.weights) == (run.step, "ema")
    assert from_pretrained(exported, dtype="trained").network == load(trained, dtype="trained").network
    assert sorted(path.name for path in exported.parent.iterdir()) == ["digits"]  # Nothing is left aside.
    tensors = read_safetensors(exported / "model.safetensors")
    assert len(tensors["blocks.qkv.kernel"]) == 2  # Blocks.
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: shortcut-models\n")
    assert json.loads((exported / "config.json").read_text())["sha256"] in card


def test_the_weights_that_are_asked_for_are_exported(trained: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(trained), str(tmp_path / "raw"), "--weights", "raw"]) == 0
    run, model = load(trained, "raw"), load(tmp_path / "raw")
    assert same(run.params, model.params)
    assert not same(run.params, load(trained).params)
    assert model.weights == "raw"


def test_an_empty_folder_is_filled_wherever_it_is(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another cannot take its place: the working directory, a link, the root of a volume."""
    model = load(exported)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    save_pretrained(model, ".")
    save_pretrained(model, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    for name in ("here", "there"):
        assert same(load(tmp_path / name).params, model.params)
        assert len(list((tmp_path / name).iterdir())) == 3  # Nothing is left aside.
    assert 'load("here")' in (tmp_path / "here/README.md").read_text()


def test_a_folder_that_cannot_be_written_is_named(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(exported)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="link is there already: choose another folder"):
        save_pretrained(model, tmp_path / "link")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(model_folder, "write_text", full)
    with pytest.raises(InputError, match=r"new/out: no space left on device: free some space"):
        save_pretrained(model, tmp_path / "new/out")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_unrolled_blocks_are_stacked_again(trained: Path, tmp_path: Path) -> None:
    model = load(trained)
    unrolled = replace(model.network, scan=False)
    model.params, model.network = unrolled.prepare(model.params), unrolled
    assert isinstance(model.params["blocks"], tuple)
    save_pretrained(model, tmp_path / "out")
    assert same(from_pretrained(tmp_path / "out").params, model.params)


def test_bfloat16_is_half_the_size_and_rounds(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    save_pretrained(model, tmp_path / "half", dtype="bfloat16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", exported)]
    assert sizes[0] < 0.7 * sizes[1]
    whole, half = (np.asarray(m.params["label"]["table"]) for m in (model, load(tmp_path / "half")))
    np.testing.assert_array_equal(half, whole.astype(jax.numpy.bfloat16).astype(np.float32))
    assert not np.array_equal(half, whole)


def test_sample_takes_a_model_folder(exported: Path, tmp_path: Path) -> None:
    assert cli.main(["sample", str(exported), "--count", "2", "--steps", "1", "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").exists()


def test_results_go_beside_the_model(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.folder_of(exported) == exported
    assert weights.folder_of(exported / "config.json") == exported
    monkeypatch.chdir(exported.parent)
    assert weights.folder_of("someone/digits") == Path()


def test_pairs_are_drawn_from_a_model_folder(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    assert cli.main(["pairs", str(exported), "--count", "2", "--steps", "1", "--out", str(out)]) == 0
    assert np.load(out / "x.npy").shape[0] == 2


def test_a_training_does_not_start_from_a_network_that_only_samples(tiny: Config, tmp_path: Path) -> None:
    file = Path(__file__).parent / "golden/weights/dit_tiny.pt"
    assert cli.main(["import", str(file), str(tmp_path / "dit"), "--num-heads", "4"]) == 0
    with pytest.raises(InputError, match="can only be sampled: draw pairs from it with `shortcut pairs`"):
        starting.check_start(replace(tiny, start_from=str(tmp_path / "dit")))


def test_training_starts_from_a_model_folder(tiny: Config, exported: Path) -> None:
    config = replace(tiny, start_from=str(exported))
    starting.check_start(config)
    expected = load(exported).params
    placed = jax.tree.map(lambda _: sharding.replicated(sharding.make_mesh()), expected)
    assert same(starting.to_start_from(config, placed), expected)
    with pytest.raises(InputError, match=r"model\.hidden_size: 16 there, 32 here"):
        starting.check_start(replace(config, model=replace(tiny.model, hidden_size=32)))


def test_a_hub_id_is_found_by_its_two_files(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(repository: str, name: str, **how: Any) -> Path:
        assert repository == "someone/digits" and how.get("revision") is None
        return exported / name

    monkeypatch.setattr(hub, "find", find)
    assert same(load("someone/digits").params, load(exported).params)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sha256": "0" * 64}, "SHA-256 is not the one"),
        ({"format": 99}, "its format is not 1"),
        ({"step": "many"}, "its field step is missing"),
        ({"step": -5}, "its field step is '-5', but must be a whole number from 0 up"),
        ({"weights": "\x1b[2J"}, r"its field weights is '\\x1b\[2J', but must be one of ema, raw, as saved"),
        ({"network": {"kind": "x" * 1000}}, r"network\.kind is 'x{59}, but this version knows"),
        ({"network": {"kind": "mlp", "\x1b[2J": 1}}, r"the fields network\.'\\x1b\[2J', network\.depth, "),
        ({"objective": {"kind": "magic"}}, "objective.kind is 'magic'"),
        ({"format": True}, "its format is not 1"),
        ({"step": 10**30}, "its field step is '10{30}', but must be a whole number"),
        ({"dtype": "int3"}, "its field dtype is 'int3', but must be one of float32, bfloat16"),
        ({"license": 5}, "its field license is missing, or of another kind"),
        ({"about": []}, "its field about is missing, or of another kind"),
        ({"class_names": ["a", "b"]}, "class_names must be a text for each of the network's 10 classes, or none"),
        ({"class_names": list(range(10))}, "class_names must be a text for each"),
        ({"shows": {"kind": "glyphs"}}, r"items of shape \(8, 8, 1\), and what it shows of \(32, 32, 3\)"),
        ({"codec": {"identity": "other"}}, "its field codec is not that of what it shows"),
    ],
)
def test_damage_is_told(exported: Path, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    config = json.loads((exported / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=told):
        load(tmp_path)


def test_other_places_are_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no weights")
    for place in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(InputError):
            load(place)
    for nothing in (None, 5, b"run", ["run"], ""):
        with pytest.raises(InputError, match="is no path: name a run"):
            inspect.unwrap(load)(nothing)  # Where nobody checks the types of arguments, as in the tests.
    with pytest.raises(InputError, match="file name too long: choose a shorter name"):
        load("x" * 300)
    with pytest.raises(InputError, match="num_heads 3 is not that of"):
        load(exported, num_heads=3)
    with pytest.raises(InputError, match="not raw ones"):
        load(exported, "raw")
    with pytest.raises(InputError, match="dtype 'int8' is unknown"):
        save_pretrained(load(exported), tmp_path / "out", dtype="int8")


def test_what_cannot_be_kept_is_refused(exported: Path, tmp_path: Path) -> None:
    save, model, out = inspect.unwrap(save_pretrained), load(exported), tmp_path / "out"
    protocol = {"step": model.step, "weights": "ema"}
    cases: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("str is no model: give what `load` returns", str(exported), out, {}),
        ("None is no path: name a folder", model, None, {}),
        (r"dtype \['float32'\] is unknown", model, out, {"dtype": ["float32"]}),
        ("about must be a dict of plain values", model, out, {"about": {"loss": float("nan")}}),
        ("about must be a dict of plain values", model, out, {"about": {"loss": np.float32(1)}}),
        (r"license 'mit\\nx: y' is no identifier", model, out, {"license": "mit\nx: y"}),
        ("is not as `shortcut evaluate` writes it", model, out, {"report": {"protocol": ["fid"]}}),
        ("is not as `shortcut evaluate` writes it", model, out, {"report": {"protocol": protocol, "steps": {}}}),
    ]
    for told, source, place, rest in cases:
        with pytest.raises(InputError, match=told):
            save(source, place, **rest)
        assert not out.exists()
    for nothing in (None, 5, ""):
        with pytest.raises(InputError, match="is no path: name a folder"):
            inspect.unwrap(from_pretrained)(nothing)
        with pytest.raises(InputError, match="is no path: name a folder"):
            inspect.unwrap(push_to_hub)(nothing, "someone/digits")
    with pytest.raises(InputError, match=r"dtype 'bfloat16' is for a model, but .* is uploaded as it is"):
        push_to_hub(exported, "someone/digits", dtype="bfloat16")


def test_a_model_folder_keeps_what_is_known_of_it(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    protocol = {"step": model.step, "weights": "ema", "count": 20, "guidance": 1.0, "seed": 3}
    report = {"protocol": protocol, "steps": {"1": {"energy-20": float("nan"), "fid": 2.0}}, "real": {}}
    first, second = tmp_path / 'a "b"', tmp_path / "c"
    save_pretrained(model, first, dtype="bfloat16", license="mit", about={"from": "a flow"}, report=report)
    assert "| 1 |  | 2 |" in (first / "README.md").read_text()  # JSON has no NaN, and what has would not load.
    assert 'load("a \\"b\\"")' in (first / "README.md").read_text()
    assert cli.main(["export", str(first), str(second), "--dtype", "bfloat16"]) == 0
    configs = [json.loads((folder / "config.json").read_text()) for folder in (first, second)]
    assert configs[0] == configs[1]
    assert configs[0]["about"]["from"] == "a flow" and "rounding moves" in configs[0]["about"]["bfloat16"]


def test_uploads_say_in_a_sentence_what_fails(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no model folder"):
        push_to_hub(tmp_path, "someone/digits")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        push_to_hub(exported, "someone/digits")

    class Refusing:
        def __init__(self, token: Any = None) -> None:
            pass

        def create_repo(self, *_: Any, **__: Any) -> None:
            raise ValueError("not allowed\nmore")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing)
    with pytest.raises(InputError, match=r"cannot be uploaded \(ValueError: not allowed\)\.$"):
        push_to_hub(exported, "someone/digits")


@pytest.fixture
def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, which huggingface_hub takes for the only one, with an empty cache."""
    constants = huggingface_hub.constants
    with serving() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # Older clients keep a copy here.
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def test_a_model_goes_to_the_hub_and_comes_back(exported: Path, own_hub: Hub, tmp_path: Path) -> None:
    made = push_to_hub(exported, "someone/digits", private=True, token="hf_t")
    assert made == f"{own_hub.address}/someone/digits/commit/{'0' * 40}"
    made_as = own_hub.repositories["someone/digits"]
    assert made_as.get("visibility") == "private" or made_as["private"] is True  # The latter, by older clients.
    assert "Bearer hf_t" in own_hub.tokens
    kept = own_hub.files["someone/digits", "main"]
    assert kept["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    assert b'load("someone/digits")' in kept["README.md"]
    assert same(load("someone/digits").params, load(exported).params)
    own_hub.asked.clear()
    assert load("someone/digits").step == 8 and not own_hub.asked  # The cache goes first.

    made = push_to_hub(
        load(exported),
        "digits",
        branch="half",
        create_pr=True,
        commit_message="Half",
        dtype="bfloat16",
        license="mit",
        about={"from": "here"},
        token="hf_t",
    )
    told = own_hub.files["me/digits", "half"]["README.md"].decode()
    assert (
        "\n# digits\n" in told and 'load("me/digits")' in told and "license: mit" in told and "| from | here |" in told
    )
    assert made == f"{own_hub.address}/me/digits/discussions/1"
    assert own_hub.commits[-1] == {"query": "create_pr=1", "summary": "Half", "description": ""}
    half = from_pretrained("me/digits", revision="half", cache_dir=tmp_path / "another cache")
    assert same(half.params, jax.tree.map(rounded, jax.device_get(load(exported).params)))

    moved = Path(shutil.copytree(exported, tmp_path / "moved"))
    push_to_hub(moved, "me/moved", token="hf_t")
    assert 'load("me/moved")' in own_hub.files["me/moved", "main"]["README.md"].decode()
    with pytest.raises(InputError, match=r"license 'mit' is for a model, but .*moved is uploaded as it is"):
        push_to_hub(moved, "me/moved", license="mit")

    with pytest.raises(InputError, match=r"nobody/digits cannot be had from the hub \(RepositoryNotFoundError"):
        load("nobody/digits")
    with pytest.raises(InputError, match=r"others/digits cannot be uploaded .*403"):
        push_to_hub(exported, "others/digits", token="hf_t")


def test_what_does_not_load_is_not_uploaded(exported: Path, own_hub: Hub, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        push_to_hub(damaged, "someone/digits")
    assert not own_hub.asked


def rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_what_rounding_does_is_measured(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    save_pretrained(model, tmp_path / "half", dtype="bfloat16")
    said = json.loads((tmp_path / "half/config.json").read_text())["about"]["bfloat16"]
    found = float(re.search(r"up to ([\d.e-]+) %", said)[1]) / 100  # pyrefly: ignore[unsupported-operation]
    given = model.noise(0, 0, 8), np.linspace(0, 1, 8), [0.0, 1.0], model.balanced_labels(8)
    answers = [
        [m.velocity(given[0], given[1], d, given[3]) for d in given[2]] for m in (model, load(tmp_path / "half"))
    ]
    whole, half = np.asarray(answers[0]), np.asarray(answers[1])
    assert 0 < found == pytest.approx(np.abs(half - whole).max() / np.abs(whole).max(), rel=0.06)
    assert said in (tmp_path / "half/README.md").read_text()


def test_the_card_tells_measured_quality_of_the_same_weights_alone(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    protocol = {"step": model.step, "weights": "ema", "count": 20, "guidance": 1.0, "seed": 3}
    report = {"protocol": protocol, "steps": {"1": {"energy-20": 0.12345}}, "real": {"energy-20": 0.01}, "x": 1}
    save_pretrained(model, tmp_path / "a", report=report, license="mit")
    text = (tmp_path / "a/README.md").read_text()
    assert "| 1 | 0.1235 |" in text and "20 samples a budget, guidance 1, seed 3" in text
    assert text.startswith("---\nlibrary_name: shortcut-models\nlicense: mit\n")
    for number, other in enumerate(({"step": 1}, {"model": "of another model"})):
        out = tmp_path / f"b{number}"
        save_pretrained(model, out, report={**report, "protocol": {**protocol, **other}})
        assert json.loads((out / "config.json").read_text())["quality"] == {}
        assert "None is recorded here" in (out / "README.md").read_text()
    # Of the same model: without what is known on this machine alone, and with what was done to it since.
    own = protocol | {"model": model.fingerprint(), "target": "/elsewhere/digits", "stats": "/elsewhere/stats.npz"}
    save_pretrained(model, tmp_path / "c", report={**report, "protocol": own}, dtype="bfloat16")
    text = (tmp_path / "c/README.md").read_text() + (tmp_path / "c/config.json").read_text()
    assert "weights ema, before they were rounded to bfloat16." in text and "/elsewhere" not in text


def test_a_path_that_no_folder_can_have_is_refused(exported: Path) -> None:
    for wrong in ("x" * 300, "a\0b"):
        with pytest.raises(InputError, match=r"name too long|is no path"):
            save_pretrained(load(exported), wrong)


def test_a_model_without_labels_has_no_classes(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    model.objective = model.objective.without_labels()
    save_pretrained(model, tmp_path / "out", about={"weights": "as saved"})
    assert json.loads((tmp_path / "out/config.json").read_text())["class_names"] == []
    card = (tmp_path / "out/README.md").read_text()
    assert "| classes | none: trained without labels |" in card and "| weights | ema, float32 |" in card


def test_a_config_that_never_ends_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    assert not is_model_folder(tmp_path)


def test_the_hubs_cache_is_used_offline(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cache/models--someone--digits"
    shutil.copytree(exported, place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs/main").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = from_pretrained("someone/digits", cache_dir=tmp_path / "cache", force_download=True)
    assert same(found.params, load(exported).params)
    with pytest.raises(InputError, match=r"config\.json of someone/other is not in the hub's cache .*cache, and"):
        from_pretrained("someone/other", cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match=r"is not in the hub's cache .*cache: give"):
        from_pretrained("someone/other", cache_dir=tmp_path / "cache", local_files_only=True)


def test_data_that_did_not_come_say_so() -> None:
    with pytest.raises(InputError, match="name them with --data"):
        Unavailable().open()
    assert Unavailable(latent_scale=0.18215).codec.identity == ""
    assert Unavailable(x_shape=(8, 8, 3)).codec.identity == "pixels"


@pytest.mark.parametrize("latents", ["edm2", "repa"])
def test_a_model_is_used_where_its_data_are_not(tiny: Config, own_hub: Hub, tmp_path: Path, latents: str) -> None:
    """As whoever downloads it does: names of classes and the codec come out of its own config.json."""
    zipped = Path(__file__).parent / "golden/data/zip/edm2_latents.zip"
    there = choose(shutil.copy(zipped, tmp_path / "latents.zip"), latents=latents)
    network = tiny.model.sized((8, 8, 4), there.num_classes)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), jax.eval_shape(network.init, jax.random.key(0))
    )
    save_pretrained(Model(network, params, tiny.objective, there, step=9, weights="ema"), tmp_path / "out")
    assert weights.read_shown(tmp_path / "out") == there
    names, codec = there.class_names, there.codec
    assert names
    push_to_hub(tmp_path / "out", "someone/latents", token="hf_t")
    assert str(tmp_path).encode() not in own_hub.files["someone/latents", "main"]["config.json"]
    public = load("someone/latents").data
    (tmp_path / "latents.zip").unlink()
    data = load(tmp_path / "out").data
    assert (data.shape, data.num_classes, data.class_names) == ((8, 8, 4), len(names), names)
    assert public == data
    assert type(data.codec) is type(codec) and vars(data.codec) == vars(codec)
    save_pretrained(load(tmp_path / "out"), tmp_path / "again")
    assert load(tmp_path / "again").data == weights.read_shown(tmp_path / "out") == data
    with pytest.raises(InputError, match=r"did not come with it, or are no longer .*: name them with --data"):
        data.open()


def test_a_model_of_images_loads_where_their_vae_is_not(tiny: Config, tmp_path: Path) -> None:
    vae, images = vaes.write_tiny(tmp_path / "vae"), write(tmp_path / "images", "a/1.png", "b/2.png")
    data = Folder(path=str(images), size=16, vae=str(vae))
    network = replace(tiny.model, channels=4, num_classes=2)
    model = Model(network, network.init(jax.random.key(0)), tiny.objective, data, step=3, weights="ema")
    save_pretrained(model, tmp_path / "model")
    shutil.rmtree(vae) if vae.is_dir() else vae.unlink()
    assert same(load(tmp_path / "model").params, model.params)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"class_names": "cats"}, "its field class_names is missing, or of another kind"),
        ({"codec": 1}, "its field codec is missing, or of another kind"),
        ({"codec": {"scale": -1.0, "identity": ""}}, r"data\.latent_scale is -1\.0, but must be a number above 0"),
        ({"codec": {"scale": 1.0, "identity": 5}}, "shows.vae_identity is 5, but must be a text"),
        ({"codec": {"encoded_by": "me"}}, "shows.encoded_by is 'me', but must be one of '', 'edm2'"),
    ],
)
def test_damage_to_what_is_known_of_the_data_is_told(
    exported: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    config = json.loads((exported / "config.json").read_text())
    config["shows"] = choice_json.to_json(catalogue.DATA, Folder(path=str(tmp_path / "gone")))
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=told):
        weights.read_shown(tmp_path)
