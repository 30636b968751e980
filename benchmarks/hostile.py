"""Does any loader here run, hang or swell on a file made to do harm?

    python -m benchmarks.hostile            its own files, for every loader; writes hostile.json and docs/hostile.md
    python -m benchmarks.hostile FOLDER     your files: every one is read, or refused in a sentence, and no more

Every file is read in a process of its own, forked from here in an empty working directory, with a limit of memory and
10 seconds. Python's audit hook notes what is run, written, connected or imported meanwhile. The exit status is the
number of files that were treated badly.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shortcut_models.errors import InputError
from shortcut_models.files import write_json
from tests.interop import hostile_files as corpus

MEMORY, SECONDS, LONGEST = 1 << 30, 10.0, 600
MUTATIONS = 100
"""Of one good file of each form, drawn with seed 0."""
RUNS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pty.spawn", "socket.connect"}
WRITES = {"os.remove", "os.rename", "os.mkdir", "os.symlink", "os.chmod", "shutil.rmtree", "ctypes.dlopen", "os.fork"}
"""Audited events that no reader of weights needs; JAX, where it starts, does some of the second kind."""
DOCS, RESULTS = Path("docs/hostile.md"), Path("benchmarks/results/hostile.json")
Read = Callable[[Path], Any]


class Case(NamedTuple):
    """One file or folder, made by `write` at a path, and read by `read`."""

    family: str
    name: str
    suffix: str
    write: Callable[[Path], Any]
    read: Read
    harmless: bool | None = False
    """True: must be read; False: must be refused; None: either."""
    uses_jax: bool = False
    """Whether the loader starts JAX, which reserves much more memory than it takes."""


def official(path: Path) -> Any:
    """The official code's pickle."""
    from shortcut_models.interop.official import read_checkpoint

    return read_checkpoint(path)


def torch(path: Path) -> Any:
    """PyTorch's file: all tensors that it has."""
    from shortcut_models.interop.torch_file import read_torch

    file = read_torch(path)
    kinds = (
        ["ema"] if file.is_bare else [n for n in ("ema", "raw") if {"ema": "ema", "raw": "model"}[n] in file.content]
    )
    return [file.state_dict(kind) for kind in kinds or ["ema"]]


def safetensors(path: Path) -> Any:
    """A file of safetensors."""
    from shortcut_models.interop.safetensors_file import read_safetensors

    return read_safetensors(path)


def statistics(path: Path) -> Any:
    """Statistics for FID."""
    from shortcut_models.metrics.statistics import read_stats

    return read_stats(path, "adm")


def foreign(path: Path) -> Any:
    """Whatever `shortcut import` takes."""
    from shortcut_models.interop.importing import read_weights

    return read_weights(path)


def load(path: Path) -> Any:
    """Whatever `shortcut sample` takes."""
    import shortcut_models

    return shortcut_models.load(path)


def cases() -> Iterator[Case]:
    """Our own files: the attacks of the test suite, folders, and mutations of good files."""

    def file(family: str, content: bytes, name: str, suffix: str, read: Read, harmless: bool | None = False) -> Case:
        return Case(family, name, suffix, lambda path: path.write_bytes(content), read, harmless)

    forms: list[tuple[str, str, Read, dict[str, Any], bytes]] = [
        ("official checkpoint", ".ckpt", official, corpus.OFFICIAL, corpus.official()),
        ("torch, zip", ".pt", torch, corpus.TORCH, corpus.GOOD),
        ("torch, legacy", ".pt", torch, corpus.LEGACY, corpus.legacy({})),
        ("safetensors", ".safetensors", safetensors, corpus.SAFE, corpus.safe({"a": corpus.entry()})),
        ("statistics (.npz)", ".npz", statistics, corpus.NPZ, corpus.statistics()),
    ]
    for family, suffix, read, attacks, good in forms:
        for name, (content, _) in attacks.items():
            yield file(family, content, name, suffix, read)
        yield file(family, good, "a good file", suffix, read, True)
        drawn = random.Random(0)
        for number in range(MUTATIONS):
            yield file(family, mutated(good, drawn), f"mutation {number}", suffix, read, None)
    with tempfile.TemporaryDirectory() as aside:
        folders = (
            ("diffusers folder", foreign, corpus.DIFFUSERS),
            ("model folder", load, corpus.MODEL_FOLDERS),
            ("run folder", load, corpus.run_folders(trained(Path(aside) / "run"))),
        )
        for family, reader, attacks in folders:
            for name, write in attacks.items():
                yield Case(family, name, "", write, reader, name.startswith("a good"), uses_jax=reader is load)


def trained(folder: Path) -> Path:
    """A run of one step; in a process of its own, because JAX must not be started in one that forks."""
    words = ["--max-steps", "1", "--batch-size", "8", "--model.hidden-size", "4", "--model.depth", "1"]
    command = [sys.executable, "-m", "shortcut_models", "train", "points", "--run-dir", str(folder), *words]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return folder


def mutated(good: bytes, drawn: random.Random) -> bytes:
    """A good file with one to three bytes changed, at times cut short or with a piece repeated."""
    data = bytearray(good)
    for _ in range(drawn.choice((1, 1, 2, 3))):
        data[drawn.randrange(len(data))] = drawn.randrange(256)
    start, end = sorted(drawn.randrange(len(data)) for _ in range(2))
    return bytes(drawn.choice((data, data, data, data[:end], data[:end] + data[start:])))


def given(folder: Path) -> Iterator[Case]:
    """Files of a folder, each read by the loader that its ending calls for."""
    readers = {".ckpt": official, ".pkl": official, ".pt": torch, ".pth": torch, ".npz": statistics}
    readers[".safetensors"] = safetensors
    for path in sorted(folder.rglob("*")):
        is_folder = path.is_dir() and (path / "config.json").is_file()
        inside = any((parent / "config.json").is_file() for parent in path.parents if parent.is_relative_to(folder))
        if is_folder or (path.suffix in readers and not path.is_dir() and not inside):
            read = foreign if is_folder else readers[path.suffix]
            yield Case("given", str(path.relative_to(folder)), "", lambda to, p=path: to.symlink_to(p), read, None)


def watched(case: Case, path: Path, answer: Any) -> None:
    """In the child: read the file, and send what came of it."""
    noted: list[str] = []
    watching = False
    refused = RUNS if case.uses_jax else RUNS | WRITES

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and not case.uses_jax and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if watching and (event in refused or writes):
            noted.append(event)

    os.chdir(path.parent)
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    if not case.uses_jax:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    sys.addaudithook(hook)
    watching = True
    try:
        case.read(path)
        verdict, said = "read", ""
    except InputError as error:
        verdict, said = "refused", str(error)
    except BaseException as error:  # A fault is what this is to find.
        verdict, said = "raised", f"{type(error).__name__}: {str(error)[:200]}"
    watching = False
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident
    answer.send((verdict, said, noted, max(0, peak)))


def attempt(case: Case) -> dict[str, Any]:
    """Read one file in a process of its own; what came of it."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        path = Path(folder) / f"x{case.suffix}"
        case.write(path)
        before = sorted(Path(folder).rglob("*"))
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=watched, args=(case, path, theirs))
        start = time.monotonic()
        process.start()
        theirs.close()
        found = ("hung", "", [], 0)
        if ours.poll(SECONDS if not case.uses_jax else 3 * SECONDS):
            try:
                found = ours.recv()
            except EOFError:
                found = ("died", "", [], 0)
        seconds = time.monotonic() - start
        if process.is_alive() and found[0] == "hung" and process.pid:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        left = [str(p.relative_to(folder)) for p in sorted(Path(folder).rglob("*")) if p not in before]
    verdict, said, noted, peak = found
    fault = ""
    if noted or left:
        fault = f"did more than read: {noted or left}"
    elif verdict not in ("read", "refused"):
        fault = f"{verdict} {said}"
    elif verdict == "refused" and not (said.isprintable() and len(said) < LONGEST + len(folder) and said.endswith(".")):
        fault = f"is refused in a way that is no sentence: {said[:200]!r}"
    elif peak > MEMORY:
        fault = f"took {peak >> 20} MiB"
    elif case.harmless is not None and case.harmless != (verdict == "read"):
        fault = f"was {verdict}: {said}"
    return {"verdict": verdict, "said": said, "seconds": seconds, "mebibytes": peak >> 20, "fault": fault}


def main() -> int:
    """Read everything; returns the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="your files instead of ours")
    asked = parser.parse_args()
    for module in ("weights", "metrics.statistics", "interop.importing"):  # So that the children need not import them.
        __import__(f"shortcut_models.{module}")
    rows: dict[str, dict[str, Any]] = {}
    faults = []
    for case in given(asked.folder.absolute()) if asked.folder else cases():
        found = attempt(case)
        row = rows.setdefault(
            case.family, {"files": 0, "refused": 0, "read": 0, "faults": 0, "seconds": 0.0, "mebibytes": 0}
        )
        row["files"] += 1
        row[found["verdict"]] = row.get(found["verdict"], 0) + 1
        for name in ("seconds", "mebibytes"):
            row[name] = max(row[name], round(found[name], 1))
        if found["fault"]:
            row["faults"] += 1
            faults.append(f"{case.family}, {case.name}: {found['fault']}")
            print(faults[-1].encode("ascii", "backslashreplace").decode(), flush=True)
    print(json.dumps(rows, indent=2))
    if not asked.folder:
        publish(rows, faults)
    return min(len(faults), 100)


def publish(rows: dict[str, dict[str, Any]], faults: list[str]) -> None:
    """Write the numbers, and the table of the page."""
    from shortcut_models.provenance import provenance

    write_json(RESULTS, {"loaders": rows, "faults": faults, **provenance("python -m benchmarks.hostile")})
    lines = [
        "| loader | files | refused | read | badly treated | slowest | most memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, row in rows.items():
        cells = [str(row[name]) for name in ("files", "refused", "read", "faults")]
        lines.append(f"| {family} | {' | '.join(cells)} | {row['seconds']:.1f} s | {row['mebibytes']} MiB |")
    text, mark = DOCS.read_text(), "<!-- table -->"
    before, after = text.split(mark)[0], text.split("<!-- /table -->")[1]
    DOCS.write_text(f"{before}{mark}\n" + "\n".join(lines) + f"\n<!-- /table -->{after}")


if __name__ == "__main__":
    sys.exit(main())
