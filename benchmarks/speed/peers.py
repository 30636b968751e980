"""Contestants that live in processes of their own: the peer, and ours under another allocator."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from shortcut_models import startup
from shortcut_models.models import DiT

ABSENT = "absent: pip install 'shortcut-models[bench]', or --peer-python with torch and diffusers"


class Child:
    """A process that answers one JSON line with another, under the system's allocator as it is."""

    def __init__(self, *command: str, without: tuple[str, ...] = ()) -> None:
        left_out = {startup.ALLOCATOR, *without}
        clean = {name: value for name, value in os.environ.items() if name not in left_out}
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process: Any = subprocess.Popen(command, **pipes, text=True, env=clean)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer, or {"error": why there is none}."""
        with suppress(BrokenPipeError):  # Then it has ended, which its silence tells, too.
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            # Compilers print to the same place.
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        return {"error": f"the process ended with status {self.process.wait()}"}

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Peers:
    """PyTorch's process, or why there is none."""

    def __init__(self, python: str | None = None) -> None:
        python = python or sys.executable
        check = subprocess.run([python, "-c", "import torch, diffusers"], capture_output=True, check=False)
        self.missing = ABSENT if check.returncode else None
        self.version = ""
        script = str(Path(__file__).with_name("peer.py"))
        self.child = None if self.missing else Child(python, script, without=("PYTHONPATH",))

    def make(self, name: str, kind: str, model: DiT, batch: int, *, compiled: bool, **more: Any) -> Any:
        """A contestant that times itself, or a sentence saying why there is none."""
        if self.child is None:
            return self.missing
        size = {"image": model.image_size, "patch": model.patch_size, "channels": model.channels, "batch": batch}
        size |= {"width": model.hidden_size, "depth": model.depth, "heads": model.num_heads}
        asked = {"make": name, "kind": kind, "classes": model.num_classes, "dtype": model.dtype, "compiled": compiled}
        answer = self.child.ask({**asked, **size, **more})
        self.version = answer.get("torch", self.version)
        return answer["error"] if "error" in answer else runner(self.child, {"run": name})

    def close(self) -> None:
        """End the process."""
        if self.child:
            self.child.close()


def runner(child: Child, question: dict[str, Any]) -> Callable[[], float]:
    """A contestant: seconds, as the process says."""
    return lambda: child.ask(question)["seconds"]
