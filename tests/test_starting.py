"""Weights that a training starts from."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shortcut_models import InputError, sharding, starting, weights
from shortcut_models.cli.parsing import split
from shortcut_models.cli.settings import resolve as resolve_line
from shortcut_models.codecs import Codec
from shortcut_models.config import Config
from shortcut_models.data.unavailable import Unavailable
from shortcut_models.interop.importing import read_weights
from shortcut_models.model import Model
from shortcut_models.model_folder import save_pretrained
from shortcut_models.networks.base import Network
from shortcut_models.networks.dit import DiT
from shortcut_models.networks.mlp import MLP
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.progressive import Progressive
from shortcut_models.objectives.shortcut import Shortcut
from shortcut_models.state import init_state
from shortcut_models.train import train
from tests.figures.known import Known
from tests.interop.pickling import write_torch

GOLDEN = Path(__file__).parent / "golden"
SIT = GOLDEN / "weights/sit_tiny.pt"


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(a), jax.device_get(b))))


def test_training_starts_from_the_averaged_weights_of_another_run(tiny: Config, trained: Path) -> None:
    config = replace(tiny, start_from=str(trained), seed=5)
    expected = weights.load(trained, "ema").params
    placed = jax.tree.map(lambda _: sharding.replicated(sharding.make_mesh()), expected)
    given = starting.to_start_from(config, placed)
    assert given is not None
    state = init_state(config, given)
    for part in (state.params, state.ema, state.target):
        assert same(part, expected)
    assert state.teacher is None
    assert not same(weights.load(trained, "raw").params, expected)
    assert starting.to_start_from(tiny, placed) is None


def test_another_way_of_computing_is_the_same_network(tiny: Config, trained: Path) -> None:
    model = replace(tiny.model, dtype="bfloat16", scan=False, remat=True, hidden_size=16)
    starting.check_start(replace(tiny, start_from=str(trained), model=model))
    # cuDNN's attention needs heads of a multiple of 8; two of 8 they are.
    starting.check_start(replace(tiny, start_from=str(trained), model=replace(model, attention="cudnn")))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"qk_norm": False}, "model.qk_norm: True there, False here"),
        ({"hidden_size": 32}, "model.hidden_size: 16 there, 32 here"),
        ({"time_scale": 1.0}, "model.time_scale: 10.0 there, 1.0 here"),
        ({"step_conditioning": "log2"}, "model.step_conditioning: smooth there, log2 here"),
        ({"attention_scale": "width"}, "model.attention_scale: root there, width here"),
    ],
)
def test_another_network_is_refused_with_the_field(
    tiny: Config, trained: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    config = replace(tiny, start_from=str(trained), model=replace(tiny.model, **changes))
    with pytest.raises(InputError, match=f"holds another network; use its settings here:\n  {told}$"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_training_cannot_start_from_is_told_in_a_sentence(tiny: Config, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run folder .*nowhere does not exist"):
        starting.check_start(replace(tiny, start_from=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"model.kind: dit there, mlp here"):
        starting.check_start(replace(tiny, start_from=str(trained), model=MLP()))
    # The shortcut objective learns the velocity, so that it can be distilled; progressive distillation does not.
    staged = replace(tiny, start_from=str(trained), objective=Progressive(total_images=128))
    starting.check_start(staged)


def test_a_method_that_distils_needs_a_run_that_learnt_the_velocity(
    tiny: Config, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(tiny, start_from="flow", objective=Progressive(total_images=128))
    monkeypatch.setattr(starting.runs, "read_config", lambda _: there)
    with pytest.raises(InputError, match="trained with progressive, which does not learn the velocity"):
        starting.check_start(replace(there, start_from=str(trained)))
    starting.check_start(replace(tiny, start_from=str(trained), objective=FlowMatching()))


@pytest.mark.parametrize(("dropout", "lacks"), [(0.0, "without a label"), (1.0, "for a label"), (0.1, "")])
def test_a_teacher_is_guided_only_by_what_it_learnt(
    tiny: Config, trained: Path, monkeypatch: pytest.MonkeyPatch, dropout: float, lacks: str
) -> None:
    flow = replace(tiny, objective=FlowMatching(label_dropout=dropout))
    monkeypatch.setattr(starting.runs, "read_config", lambda _: flow)
    for guidance in (1.0, 1.5):
        config = replace(tiny, start_from=str(trained), objective=Progressive(total_images=128, guidance=guidance))
        if lacks and guidance != 1:
            with pytest.raises(
                InputError, match=rf"guidance is 1\.5, but --start-from .* never learnt to answer {lacks}"
            ):
                starting.check_start(config)
        else:
            starting.check_start(config)


def place(params: Any) -> Any:
    """A sharding for each parameter."""
    return jax.tree.map(lambda _: sharding.replicated(sharding.make_mesh()), params)


def started(config: Config) -> Any:
    """The parameters that a training of `config` starts from."""
    starting.check_start(config)
    return starting.to_start_from(config, place(jax.eval_shape(config.model.init, jax.random.key(0))))


def answers(network: Network, params: Any, x: Any, t: Any, d: Any, label: Any) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        each = [jnp.broadcast_to(jnp.asarray(value, jnp.float32), len(x)) for value in (t, d)]
        return np.asarray(jax.jit(network.apply)(params, jnp.asarray(x), *each, jnp.asarray(label, jnp.int32)))


def close(found: np.ndarray, expected: np.ndarray, within: float = 1e-5) -> bool:
    return bool(np.abs(found - expected).max() < within * np.abs(expected).max())


@pytest.mark.parametrize(("classes", "answer"), [(5, "velocity_ema"), (3, "velocity_ema_null")])
def test_a_shortcut_model_starts_where_a_sit_is(
    tiny: Config, classes: int, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = dict(np.load(GOLDEN / "weights/sit_tiny.npz"))
    data = Unavailable(x_shape=(8, 8, 4), classes=classes)
    config = starting.follow_start(replace(tiny, data=data, start_from=str(SIT)), num_heads=2)
    assert isinstance(config.model, DiT)
    assert (config.model.num_classes, config.model.time_scale, config.model.scan) == (classes, 1.0, True)
    params = started(config)
    said = capsys.readouterr().err
    assert "sit model of flow kind, weights ema" in said
    assert ("was trained on 5 classes: the 3 here" in said) == (classes == 3)
    # Where classes are others, each answers without a label, the null label too.
    label = golden["y"] if classes == 5 else [0, 2, 3]
    for d in (0.0, 0.3, 1.0):
        found = answers(config.model, params, np.moveaxis(golden["x"], 1, -1), golden["t"], d, label)
        assert close(found, np.moveaxis(golden[answer], 1, -1))


@pytest.mark.parametrize("step_conditioning", ["smooth", "log2"])
def test_a_flow_of_ours_answers_at_first_the_same_for_every_step_size(
    tiny: Config, tmp_path: Path, step_conditioning: str
) -> None:
    network = replace(tiny.model, step_conditioning=step_conditioning, zero_gates=False)
    params = jax.tree.map(lambda leaf: leaf + 0.05, network.init(jax.random.key(3)))
    flow = Model(network, params, FlowMatching(), tiny.data, step=9, weights="ema")
    config = replace(tiny, model=network, start_from=str(save_pretrained(flow, tmp_path / "flow")))
    found, x, label = started(config), np.ones((2, 8, 8, 1), np.float32), [3, 10]
    own = [answers(network, params, x, 0.4, d, label) for d in (0.0, 1.0)]
    assert not close(own[0], own[1], 1e-3)  # What it answers for d=1 was never learnt.
    for d in (0.0, 0.25, 1.0):
        assert close(answers(network, found, x, 0.4, d, label), own[0])
    # A shortcut model has learnt its jumps, so that nothing is changed.
    model = Model(network, params, tiny.objective, tiny.data, step=9, weights="ema")
    assert same(started(replace(config, start_from=str(save_pretrained(model, tmp_path / "model")))), params)


@pytest.mark.parametrize(
    ("names", "dropout", "rows", "told"),
    [
        (("dog", "cat", "eel"), 0.1, [1, 0, 2, 3], ""),
        (("cat", "dog", "eel"), 0.1, None, ""),
        (("cat", "cow", "dog", "eel"), 0.1, [0, 3, 1, 2, 3], "3 of the 4 here go on from the one of their name, and"),
        (
            ("cow", "ant", "bee"),
            0.1,
            [3, 3, 3, 3],
            "other classes: the 3 here all start from its answer without a label",
        ),
        (("cow", "cat"), 0.0, [-1, 0, -1], "the others start from the mean of its classes, as it never learnt to"),
    ],
)
def test_classes_go_by_their_names(
    tiny: Config,
    tmp_path: Path,
    names: tuple[str, ...],
    dropout: float,
    rows: list[int] | None,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = Unavailable(x_shape=(8, 8, 1), classes=3, names=("cat", "dog", "eel"))
    network = replace(tiny.model, num_classes=3)
    params = jax.tree.map(lambda leaf: leaf + 0.05, network.init(jax.random.key(3)))
    model = Model(network, params, Shortcut(label_dropout=dropout), old, step=9, weights="ema")
    new = Unavailable(x_shape=(8, 8, 1), classes=len(names), names=names)
    here = replace(tiny.model, num_classes=len(names))
    config = replace(tiny, data=new, model=here, start_from=str(save_pretrained(model, tmp_path / "model")))
    table, found = params["label"]["table"], started(config)["label"]["table"]
    table = np.concatenate([table, np.mean(table[:-1], axis=0, keepdims=True)])
    np.testing.assert_allclose(found, table[:4] if rows is None else table[rows], atol=1e-6)
    assert told in capsys.readouterr().err
    if rows and len(names) == 3:
        teacher = replace(config, objective=Progressive())
        with pytest.raises(InputError, match=r"other classes than the data have, '\w+' there, '\w+' here: a teacher"):
            starting.check_start(teacher)


@pytest.mark.parametrize(("there", "here"), [("a" * 64, "b" * 64), ("a" * 64, "a" * 64), ("", "b" * 64)])
def test_a_start_on_latents_of_another_vae_is_told(
    tiny: Config, tmp_path: Path, there: str, here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [Unavailable(x_shape=(8, 8, 1), classes=10, latent_scale=0.18215, vae_identity=vae) for vae in (there, here)]
    model = Model(tiny.model, tiny.model.init(jax.random.key(0)), tiny.objective, data[0], step=9, weights="ema")
    started(replace(tiny, data=data[1], start_from=str(save_pretrained(model, tmp_path / "model"))))
    told = "was trained on latents of the VAE 'aaaaaaaaaaaa', but these are of bbbbbbbbbbbb"
    assert (told in capsys.readouterr().err) == (bool(there) and there != here)


class Lost(Unavailable):
    """Images whose VAE is gone: its file can no longer say how they were encoded, but the run knows which it was."""

    @property
    def codec(self) -> Codec:
        raise InputError("the file of the VAE is not there")


def test_a_start_whose_vae_is_gone_is_still_compared_by_what_the_run_knows() -> None:
    there = Lost(x_shape=(8, 8, 1), classes=10, vae_identity="a" * 64)
    here = Unavailable(x_shape=(8, 8, 1), classes=10, latent_scale=0.18215, vae_identity="b" * 64)
    assert starting._about_latents(there, here).startswith("latents of the VAE 'aaaaaaaaaaaa', but these are of bbb")
    assert starting._about_latents(there, replace(here, vae_identity="a" * 64)) == ""


def test_a_start_on_latents_of_another_tool_is_told(
    tiny: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # EDM2's tool encodes images in [0, 1], REPA's in [-1, 1]: the same files otherwise.
    edm2, repa = (
        Unavailable(x_shape=(8, 8, 1), classes=10, latent_scale=0.5, encoded_by=tool) for tool in ("edm2", "")
    )
    model = Model(tiny.model, tiny.model.init(jax.random.key(0)), tiny.objective, repa, step=9, weights="ema")
    config = replace(tiny, start_from=str(save_pretrained(model, tmp_path / "model")))
    for data in (edm2, repa):
        started(replace(config, data=data))
        assert ("latents that are encoded, or scaled, in another way" in capsys.readouterr().err) == (data is edm2)
    # What a teacher says of other latents is of no use.
    flow = Model(tiny.model, model.params, FlowMatching(), repa, step=9, weights="ema")
    distilled = replace(config, start_from=str(save_pretrained(flow, tmp_path / "flow")), objective=Progressive())
    starting.check_start(replace(distilled, data=repa))
    with pytest.raises(InputError, match="in another way than these: a teacher must know these, so train one"):
        starting.check_start(replace(distilled, data=edm2))


@pytest.mark.parametrize(
    "network",
    [
        DiT(image_size=4, channels=1, num_classes=3, patch_size=2, hidden_size=8, depth=1, num_heads=1),
        MLP(num_classes=3, hidden_size=8, depth=2, frequencies=4),
    ],
)
def test_a_network_forgets_the_step_and_its_classes(network: Network) -> None:
    params = jax.jit(lambda: jax.tree.map(lambda leaf: leaf + 0.1, network.init(jax.random.key(0))))()
    x = jax.random.normal(jax.random.key(1), (3, *network.shape))
    t = np.asarray([0.1, 0.5, 0.9], np.float32)
    without = network.without_step(params, 0.25)
    for d in (0.0, 0.25, 1.0):
        assert close(
            answers(network, without, x, t, d, [0, 1, 3]), answers(network, params, x, t, 0.25, [0, 1, 3]), 1e-5
        )

    @jax.jit
    def slope(d: jax.Array) -> Any:
        return jax.grad(lambda p: jnp.sum(network.apply(p, x, jnp.asarray(t), d, jnp.zeros(3, jnp.int32)) ** 2))(
            without
        )

    slopes = [slope(jnp.full(3, d)) for d in (0.1, 1.0)]
    assert not same(*slopes)  # The step size can be learnt from there.
    other = replace(network, num_classes=5)
    found = network.with_classes(params, [3] * 6)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, jax.eval_shape(other.init, jax.random.key(0)))
    assert close(answers(other, found, x, t, 0.5, [0, 4, 5]), answers(network, params, x, t, 0.5, [3, 3, 3]))


def test_a_custom_network_says_that_its_shape_and_classes_are_fixed() -> None:
    network = Known(shape=(2,), num_classes=2)
    with pytest.raises(InputError, match="cannot be given 3 classes in place of 2"):
        network.with_classes({}, [0, 1, 2, 2])
    assert network.sized((2,), 2) == network
    with pytest.raises(InputError, match=r"Known is for inputs of shape \(2,\) in 2 classes, but the data have shape"):
        network.sized((3,), 2)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint with one channel, so that digits fit it, and the state of its optimiser."""
    golden, trees = dict(np.load(GOLDEN / "official_dit.npz")), {"params": {}, "params_ema": {}}
    for path, array in golden.items():
        top, *inner = path.split("/")
        if top in trees:
            node = trees[top]
            for part in inner[:-1]:
                node = node.setdefault(part, {})
            node[inner[-1]] = array
    for tree in trees.values():
        tree["PatchEmbed_0"]["Conv_0"]["kernel"] = tree["PatchEmbed_0"]["Conv_0"]["kernel"][:, :, :1]
        for name, array in tree["FinalLayer_0"]["Dense_1"].items():
            tree["FinalLayer_0"]["Dense_1"][name] = array[..., ::4]  # Columns are (row, column, channel).
    fresh: Any = optax.adamw(1e-4).init(jax.tree.map(jnp.asarray, trees["params"]))
    adam, *rest = fresh
    nu = jax.tree.map(np.square, trees["params"])
    adam = adam._replace(count=np.asarray(7, np.int32), mu=trees["params_ema"], nu=nu)
    rest = jax.tree.map(np.asarray, tuple(rest))
    state = {**trees, "opt_state": ((adam, *rest),), "step": np.asarray(7, np.int32)}
    file = tmp_path_factory.mktemp("official") / "model.ckpt"
    file.write_bytes(pickle.dumps({"train_state": state}))
    return file


@pytest.fixture(scope="module")
def from_official(official: Path) -> Callable[..., Config]:
    def settle(*words: str) -> Config:
        flags = ["--start-from", str(official), "--model.num-heads", "4", "--batch-size", "16", *words]
        constant = ["--optimizer.schedule", "constant", "--optimizer.decay-steps", "0", "--model.scan", "1"]
        return resolve_line("digits", split([*flags, *constant]), [])

    return settle


def test_an_official_checkpoint_is_answered_as_it_answers(from_official: Callable[..., Config], official: Path) -> None:
    config = from_official()
    there = weights.load(official, num_heads=4, image_size=8)
    assert config.model.differs_from(there.network) == []
    assert same(started(config), there.params)


def test_a_network_without_steps_answers_as_for_index_0(from_official: Callable[..., Config], official: Path) -> None:
    config = from_official("--start-as", "naive", "--objective", "flow-matching")
    there, x = weights.load(official, num_heads=4, image_size=8), np.ones((2, 8, 8, 1), np.float32)
    params = started(config)
    expected = answers(there.network, there.params, x, 0.4, 1.0, [1, 10])  # log2(1/d) = 0.
    for d in (0.0, 1.0):
        assert close(answers(config.model, params, x, 0.4, d, [1, 10]), expected)


def test_a_checkpoint_without_averages_starts_from_its_last_weights(
    from_official: Callable[..., Config], official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = pickle.loads(official.read_bytes())["train_state"] | {"params_ema": None}
    file = tmp_path / "raw.ckpt"
    file.write_bytes(pickle.dumps({"train_state": state}))
    config = from_official("--start-from", str(file), "--start-optimizer", "1", "--max-steps", "8")
    starting.check_start(config)
    raw = weights.load(official, "raw", num_heads=4, image_size=8).params
    begun = started(config)
    assert same(begun, raw)
    assert (
        "it has no averaged weights: training and its average both start from the last ones." in capsys.readouterr().err
    )
    state = jax.device_put(init_state(config, begun), sharding.replicated(sharding.make_mesh()))
    step, found = starting.go_on(config, state)
    assert step == 7 and same(found.params, raw) and same(found.ema, raw)


@pytest.mark.slow
def test_an_official_training_goes_on(from_official: Callable[..., Config], official: Path, tmp_path: Path) -> None:
    config = from_official("--start-optimizer", "1", "--max-steps", "8", "--optimizer.learning-rate", "0.01")
    state = init_state(config, started(config))
    step, found = starting.go_on(config, jax.device_put(state, sharding.replicated(sharding.make_mesh())))
    told: dict[str, Any] = {"num_heads": 4, "image_size": 8}
    raw = read_weights(official, weights="raw", optimizer=True, **told)
    averaged = read_weights(official, **told)
    assert raw.moments is not None and raw.moments["count"] == step == 7
    assert same(found.params, raw.params) and same(found.ema, averaged.params) and same(found.target, averaged.params)
    opt_state: Any = found.opt_state
    adam, _, schedule = opt_state
    assert same(adam.mu, raw.moments["mu"]) and same(adam.nu, raw.moments["nu"])
    assert int(adam.count) == int(schedule.count) == 7
    # The eighth step is theirs as much as ours: Adam's update of its moments, of which ours is the gradient alone.
    assert train(config, tmp_path / "run") == 0
    assert weights.load(tmp_path / "run", "raw").step == 8
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), weights.load(tmp_path / "run", "raw").params, raw.params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.011 * 10


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"start_from": ""}, "say what to do with --start-from"),
        ({"max_steps": 7}, "has had 7 steps, but --max-steps is 7"),
        ({"start_from": "trained"}, "--start-optimizer is for checkpoints of the official code, which .*run is not"),
        ({"start_as": "magic"}, "--start-as 'magic' is unknown: use one of auto, sit, shortcut"),
    ],
)
def test_what_cannot_go_on_is_told(
    from_official: Callable[..., Config], trained: Path, changes: dict[str, Any], told: str
) -> None:
    config = from_official("--start-optimizer", "1")
    if changes.get("start_from"):
        changes = {"start_from": str(trained)}
    with pytest.raises(InputError, match=told):
        starting.check_start(replace(config, **changes))


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("weights/dit_tiny.pt", "only be sampled: make a model folder .* draw pairs from it with `shortcut pairs`"),
        ("weights/diffusers_dit", "only be sampled: .*`shortcut pairs`"),
        ("weights/sit_gvp.pt", "path_type 'GVP', which is no velocity"),
        ("weights/sit_noise.pt", "prediction 'noise', which is no velocity"),
        ("weights/sit_tiny_ema.pt", "to start a training: --start-as sit"),
        ("weights/sit_tiny.pt", "is for inputs of 8 x 8 x 4, but the data's items are 8 x 8 x 1"),
    ],
)
def test_files_that_no_training_starts_from(tiny: Config, file: str, told: str) -> None:
    heads = {"weights/dit_tiny.pt": 4, "weights/diffusers_dit": None}.get(file, 2)
    with pytest.raises(InputError, match=told):
        starting.follow_start(replace(tiny, start_from=str(GOLDEN / file)), num_heads=heads)


def test_data_of_another_size_are_told_by_their_shape(tiny: Config) -> None:
    data = Unavailable(x_shape=(32, 32, 3), classes=5)
    with pytest.raises(
        InputError, match=r"sit_tiny\.pt is for inputs of 8 x 8 x 4, but the data's items are 32 x 32 x 3"
    ):
        starting.follow_start(replace(tiny, data=data, start_from=str(SIT)), num_heads=2)


def test_heads_that_no_file_tells_are_asked_for(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"to start a training, --model\.num-heads"):
        starting.follow_start(replace(tiny, start_from=str(SIT)))
    tensors = {"a": np.zeros((2, 2), np.float32)}
    file = write_torch(tmp_path / "x.pt", tensors, path_type="Linear")
    with pytest.raises(InputError, match="is not there, so this is no network"):
        starting.follow_start(replace(tiny, start_from=str(file)))


def test_a_teacher_must_know_the_labels(tiny: Config, trained: Path) -> None:
    model = replace(tiny.model, num_classes=4)
    distilled = replace(tiny, model=model, start_from=str(trained), objective=Progressive(total_images=128))
    with pytest.raises(InputError, match="was trained on 10 classes, but the data have 4: a teacher must know"):
        starting.check_start(distilled)
    starting.check_start(replace(distilled, objective=FlowMatching()))


def test_the_network_is_the_one_to_start_from(tiny: Config, trained: Path) -> None:
    there = starting.follow_start(replace(tiny, model=DiT(dtype="bfloat16", remat=True), start_from=str(trained))).model
    assert there == replace(tiny.model, dtype="bfloat16", remat=True)
    nowhere = replace(tiny, start_from=str(trained / "missing"))
    assert starting.follow_start(nowhere) is nowhere
