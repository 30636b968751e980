"""Every test runs on eight faked devices, with strict dtypes, and with types and shapes checked.

The settings come first: JAX reads them when it first touches a device, and the import hook sees
only modules that are imported after it.
"""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception
from jaxtyping import install_import_hook

# As at a terminal, although a script that starts the tests in the background, or nohup, has these ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Compiling is most of the tests' time. XLA's costly passes make programs faster, not other, and the tests' are tiny;
# and what one test has compiled serves the others, and the processes that they start.
jax.config.update("jax_disable_most_optimizations", True)
# The first process makes the folder, and pytest-xdist's workers find it. With a limit it is locked: without, a program
# may be read while it is written.
if "SHORTCUT_TESTS_COMPILED" not in os.environ:
    FOLDER = tempfile.TemporaryDirectory(prefix="shortcut-tests-")
    os.environ["SHORTCUT_TESTS_COMPILED"] = FOLDER.name
CACHE = {"jax_compilation_cache_dir": os.environ["SHORTCUT_TESTS_COMPILED"], "jax_compilation_cache_max_size": 2**30}
for name, value in CACHE.items():
    jax.config.update(name, value)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **{name.upper(): str(value) for name, value in CACHE.items()}}
"""The same for the processes that tests start."""


def check_types(checked: Any) -> Any:
    """Beartype, but for signatures that name a Protocol or Self, which are the type checker's to check."""
    try:
        # As for a type checker, a float may be given as an int.
        return beartype(conf=BeartypeConf(is_pep484_tower=True))(checked)
    except (BeartypeDecorHintPep3119Exception, BeartypeDecorHintPep673Exception):
        return checked


install_import_hook("shortcut_models", f"{__name__}.check_types")

from shortcut_models.config import Config  # noqa: E402
from shortcut_models.data.digits import Digits  # noqa: E402
from shortcut_models.networks.dit import DiT  # noqa: E402
from shortcut_models.objectives.shortcut import Shortcut  # noqa: E402
from shortcut_models.optimizer import Optimizer  # noqa: E402
from shortcut_models.train import train  # noqa: E402

TINY = Config(
    data=Digits(),
    batch_size=16,
    max_steps=8,
    ema_decay=0.9,
    log_interval=2,
    save_interval=4,
    model=DiT(image_size=8, channels=1, num_classes=10, patch_size=4, hidden_size=16, depth=2, num_heads=2),
    objective=Shortcut(),
    optimizer=Optimizer(learning_rate=1e-2, warmup_steps=2),
)
# The same settings as overrides of the preset `digits`, for tests of the command line.
TINY_FLAGS = """
--batch-size 16 --max-steps 8 --ema-decay 0.9 --log-interval 2 --save-interval 4
--model.hidden-size 16 --model.depth 2 --model.num-heads 2 --model.scan 1
--optimizer.learning-rate 1e-2 --optimizer.warmup-steps 2 --optimizer.schedule constant --optimizer.decay-steps 0
--objective.target-decay 0.99 --objective.flow-weight 1 --objective.share 0.25
--objective.levels 128 --objective.step-sizes dyadic --objective.split half --objective.longer 0
""".split()  # noqa: SIM905


SLOW = ("benchmarks", "test_collectives", "test_compare", "test_multiprocess", "test_run_processes", "test_teachers")
"""Files and folders of tests that take long, and do not differ with the version of Python or JAX."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {item.path.stem, item.path.parent.name} & set(SLOW):
            item.add_marker("slow")
    # Where files are shared out, the long ones come first, so that no process is left alone with one at the end.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test, so that none sees what another, or the person who runs them, has in it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "shortcut-models"


@pytest.fixture(scope="session")
def tiny() -> Config:
    """The smallest run that has all parts: digits, two blocks, a target average of its own, two checkpoints."""
    return TINY


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """Arguments after `train digits` that make the run of `tiny`."""
    return list(TINY_FLAGS)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of `tiny`, complete. Shared: a test that changes it asks for `trained_copy`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(TINY, folder, "shortcut train digits") == 0
    return folder


@pytest.fixture
def trained_copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, free to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def start_shortcut() -> Callable[..., subprocess.Popen[str]]:
    """Start `shortcut ARGUMENTS` as a process of its own, on one CPU device."""

    def start(*words: object, **env: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "shortcut_models", *map(str, words)],
            env={**inherited, "JAX_PLATFORMS": "cpu", **QUICK, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def with_settings() -> Callable[..., Config]:
    """A configuration with some fields of it, or of its parts, replaced: model__depth=3."""

    def change(config: Config, **changes: Any) -> Config:
        parts: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            part, _, field = name.rpartition("__")
            parts.setdefault(part, {})[field] = value
        own = parts.pop("", {})
        nested = {part: dataclasses.replace(getattr(config, part), **fields) for part, fields in parts.items()}
        return dataclasses.replace(config, **own, **nested)

    return change
