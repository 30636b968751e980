"""Starts the peer's process and hands out its contestants."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortcut_models.models import DiT

ABSENT = "absent: pip install 'shortcut-models[bench]', or --peer-python with torch and diffusers"


class Peers:
    """The process, or why there is none."""

    def __init__(self, python: str | None = None) -> None:
        python = python or sys.executable
        check = subprocess.run([python, "-c", "import torch, diffusers"], capture_output=True, check=False)
        self.missing = ABSENT if check.returncode else None
        self.version = ""
        self.process: Any = None
        if not self.missing:
            clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            self.process = subprocess.Popen(
                [python, str(Path(__file__).with_name("peer.py"))],
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL},
                text=True,
                env=clean,
            )

    def make(self, name: str, kind: str, model: DiT, batch: int, *, compiled: bool, **more: Any) -> Any:
        """A contestant that times itself, or a sentence saying why there is none."""
        if self.missing:
            return self.missing
        size = {"image": model.image_size, "patch": model.patch_size, "channels": model.channels, "batch": batch}
        size |= {"width": model.hidden_size, "depth": model.depth, "heads": model.num_heads}
        asked = {"make": name, "kind": kind, "classes": model.num_classes, "dtype": model.dtype, "compiled": compiled}
        answer = self._ask({**asked, **size, **more})
        return answer["error"] if "error" in answer else self._runner(name)

    def _runner(self, name: str) -> Callable[[], float]:
        return lambda: self._ask({"run": name})["seconds"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            # Compilers print to the same place.
            if line.startswith("answer "):
                answer = json.loads(line.removeprefix("answer "))
                self.version = answer.get("torch", self.version)
                return answer
        return {"error": f"the peer's process ended with status {self.process.wait()}"}

    def close(self) -> None:
        """End the process."""
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
