"""From words to dataclasses and back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from shortcut_models import InputError
from shortcut_models.cli import parsing


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: ClassVar[str] = "inner"

    depth: int = 2
    """How deep."""
    share: float | None = 0.25
    """A share."""


@dataclass(frozen=True, kw_only=True)
class Derived(Inner):
    scan: bool = True
    """Whether it scans, a sentence
    over two lines."""
    kind: Literal["dp", "fsdp"] = "dp"
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.depth * max(self.sizes) > 100:
            raise InputError(f"depth {self.depth} and sizes {self.sizes} do not go together.")


@dataclass(frozen=True)
class Outer:
    """A command."""

    run: Path
    """Run folder."""
    words: str = ""
    out: Path | None = None
    """Where to."""
    model: Inner = field(default_factory=Derived)


def outer(*words: str) -> Outer:
    line = parsing.split(list(words))
    chosen = Outer(Path("x"))
    parsing.check_known(line, parsing.settings(chosen))
    return parsing.override(chosen, line)


def test_flags_reach_nested_fields_with_dashes_or_underscores_and_in_any_order() -> None:
    found = outer("--model.kind=fsdp", "--words", "a b", "--model.depth", "-3", "--model.sizes", "4,5", "--out", "y z")
    assert found == Outer(Path("x"), "a b", Path("y z"), Derived(depth=-3, kind="fsdp", sizes=(4, 5)))
    assert outer("--model.scan", "0").model == Derived(scan=False)
    assert outer("--model.share", "None").model.share is None
    assert outer("--model.depth", "1", "--model.depth=7").model.depth == 7
    assert outer("--words", "") == outer("--words=") == outer() == Outer(Path("x"))


def test_only_the_settings_as_a_whole_have_to_agree() -> None:
    # Each alone would be refused upon the other's default.
    assert outer("--model.depth", "60", "--model.sizes", "1").model.depth == 60
    with pytest.raises(InputError, match=r"^depth 60 and sizes \(1, 2\) do not go together\.$"):
        outer("--model.depth", "60")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model.dept", "3"], "--model.dept is unknown: did you mean --model.depth?"),
        (["--depth", "3"], "--depth is unknown: did you mean --model.depth?"),
        (["--zebra", "3"], "--zebra is unknown: --help lists the flags."),
        (["--model", "3"], "--model is unknown: --help lists the flags."),
        (["--words"], "--words needs a value: --words VALUE."),
        (["--words", "--out", "x"], "--words needs a value: --words VALUE."),
        (["-o", "x"], "-o is unknown: flags begin with two dashes, such as --steps 4."),
        (["--model.depth", "2.5"], "--model.depth 2.5 must be a whole number."),
        (["--model.share", "lots"], "--model.share lots must be a finite number or none."),
        (["--model.share", "nan"], "--model.share nan must be a finite number or none."),
        (["--model.share=-inf"], "--model.share -inf must be a finite number or none."),
        (["--model.scan", "maybe"], "--model.scan maybe must be 0, 1, true or false."),
        (["--model.kind", "fsdb"], "--model.kind fsdb must be one of dp, fsdp: did you mean fsdp?"),
        (["--model.kind", "x y"], "--model.kind 'x y' must be one of dp, fsdp."),
        (["--model.sizes", "1,x,3"], "--model.sizes 1,x,3 must be whole numbers separated by commas: 'x' is not."),
        (["--out="], "--out '' must be a path on this machine or none."),
        (["--out", "gs://bucket/out"], "--out gs://bucket/out must be a path on this machine or none."),
    ],
)
def test_a_refusal_is_one_sentence_that_names_the_flag_and_its_value(words: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        outer(*words)
    assert str(refusal.value) == sentence


def test_what_is_written_reads_as_the_same_value() -> None:
    values = {"model.scan": False, "model.share": None, "model.sizes": (3, 4, 5), "model.depth": 10**9}
    values |= {"model.kind": "fsdp", "words": "", "out": Path("a b")}
    known = parsing.settings(Outer(Path("x")))
    for name, value in values.items():
        assert parsing.read(name, known[name].kind, parsing.write(value)) == value
    for number in (1e-4, 0.1 + 0.2, 4.0, 1e300):
        assert parsing.read("share", float, parsing.write(number)) == number
    assert parsing.read("sizes", tuple[int, ...], parsing.write(())) == ()


def test_fields_are_known_with_their_type_value_and_docstring_inherited_or_own() -> None:
    known = parsing.settings(Outer(Path("x")))
    assert list(known) == [
        *("run", "words", "out"),
        *("model.depth", "model.share", "model.scan", "model.kind", "model.sizes"),
    ]
    assert known["model.depth"] == (int, 2, "How deep.")
    assert known["model.scan"].about == "Whether it scans, a sentence over two lines."
    assert known["words"].about == ""
    assert parsing.settings(Outer)["model.depth"].value == 2


def test_a_command_takes_its_arguments_by_place() -> None:
    assert parsing.parse(Outer, "outer", ["--words", "w", "here"]) == Outer(Path("here"), "w")
    assert parsing.parse(Outer, "outer", ["--words", "w", "--", "--odd name"]) == Outer(Path("--odd name"), "w")
    for words, sentence in (
        ([], "RUN is missing (run folder): shortcut outer RUN."),
        (["a", "b"], "argument 'b' is one too many: the usage is shortcut outer RUN."),
        (["a", "words"], "argument 'words' is one too many: flags begin with two dashes, as --words would."),
        (["a", "--run", "b"], "--run is unknown: --help lists the flags."),
    ):
        with pytest.raises(InputError) as refusal:
            parsing.parse(Outer, "outer", words)
        assert str(refusal.value) == sentence


def test_help_says_what_a_flag_takes_and_what_it_is_without() -> None:
    shown = parsing.usage(Outer, "outer")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[:3] == ["usage: shortcut outer RUN [--FLAG VALUE ...]", "", "A command."]
    for line in (
        "RUN Run folder.",
        "--words TEXT",
        "--out PATH Where to.",
        "--model.depth INT How deep. (2)",
        "--model.share FLOAT A share. (0.25)",
        "--model.scan 0|1 Whether it scans, a sentence over two lines. (1)",
        "--model.kind dp|fsdp (dp)",
        "--model.sizes INT,... (1,2)",
    ):
        assert line in lines
    assert max(map(len, shown.splitlines())) <= parsing.WIDTH


def test_switches_take_no_value_and_the_rest_do() -> None:
    line = parsing.split(["a", "--dry-run", "b", "--max_steps", "3"], ["dry_run"])
    assert line == (["a", "b"], {"dry_run": "1", "max_steps": "3"})
    assert line.take("steps", "max_steps") == "3"
    assert line.take("max_steps") is None
    twice = parsing.split(["--data", "points", "--dataset-name=digits"])
    with pytest.raises(InputError, match=r"^--data and --dataset-name are names of the same: give one of them\.$"):
        twice.take("data", "dataset_name")
    assert parsing.split(["--dry-run=0"], ["dry_run"]).flags == {"dry_run": "0"}


def test_whole_numbers_name_the_one_that_is_wrong() -> None:
    assert parsing.whole_numbers("steps", "1,4,128", 1) == (1, 4, 128)
    assert parsing.whole_numbers("seeds", "5,", 0) == (5,)
    for text, end in (("1,x,4", ": 'x' is not."), ("4,0", ": '0' is not."), (",", "."), ("1,,2", ".")):
        with pytest.raises(InputError) as refusal:
            parsing.whole_numbers("steps", text, 1)
        expected = f"--steps {text} must be whole numbers from 1 up, separated by commas{end}"
        assert str(refusal.value) == expected


def test_counts_below_one_are_refused() -> None:
    parsing.check_counts(1, 1)
    with pytest.raises(InputError, match="--steps is 0, but sampling takes at least 1 step"):
        parsing.check_counts(0, 1)
    with pytest.raises(InputError, match="--count is -3, but at least 1 sample must be drawn"):
        parsing.check_counts(1, -3)


def test_the_record_of_a_command_can_be_typed_again() -> None:
    assert parsing.command_line("sample", ["a b", "--steps", "1"]) == "shortcut sample 'a b' --steps 1"
