"""Where a number comes from: command, commit, versions, device; and for a run, who trained which part."""

import os
import platform
import socket
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("shortcut-models", "jax", "jaxlib", "optax", "orbax-checkpoint", "grain", "numpy")


def provenance(command: str) -> dict[str, Any]:
    """What has to be known to repeat a number: command, commit, versions, device, time."""
    return {
        "command": command,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def start(command: str, step: int) -> dict[str, Any]:
    """An entry of run.json's "starts": who trains the steps after `step`, until the next entry's.

    Of several processes, "host" and "process" are those of the one that writes it.
    """
    return {"step": step, **provenance(command), "host": socket.gethostname(), "process": os.getpid()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that this package runs from, "+" if its code was changed since; None outside one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside some other project's checkout.
        if git("ls-files", "--error-unmatch", Path(__file__).name) == "":
            return None
        # Benchmarks write their tables into docs/ part by part; those compute nothing.
        code = ("--untracked-files=no", "--", ":/", ":(exclude,top)docs", ":(exclude,top)benchmarks/results")
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
