"""The page of a run: complete, self-contained, and true to the files in its folder."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from shortcut_models import cli
from shortcut_models.figures import left_out
from shortcut_models.figures.folder import Drawn, read_folder
from shortcut_models.model_folder import save_pretrained
from shortcut_models.page import Section, code, facts, folded, heading, page, picture, table, text
from shortcut_models.report import _file, write_report
from shortcut_models.weights import load

VOID = {"meta", "img", "br"}
EVIL = '<script>alert("&")</script>'


class Reader(HTMLParser):
    """Reads a page, and sees to it that every element is closed in its place."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


EVALUATION: dict[str, Any] = {
    "protocol": {"step": 8, "weights": "ema", "guidance": 1.5, "count": 100, "seed": 3, "labels": None},
    "steps": {"1": {"frechet-pixels-100": 4.0, "agreement-digitnet1-100": 0.25}, "4": {"frechet-pixels-100": 2.0}},
    "real": {"frechet-pixels-100": 0.5},
    "ratio": {"1": {"frechet-pixels-100": 8.0}, "4": {"frechet-pixels-100": 4.0}},
    "about": {"labels": "balanced", "real": "100 of 200", "reference": {"frechet-pixels": "200 examples"}},
    "command": f"shortcut evaluate {EVIL}",
    "commit": "0123456789abcdef",
    "device": "1 x cpu",
}


def read(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


def test_all_text_is_escaped(tmp_path: Path) -> None:
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    )
    (tmp_path / "dot.png").write_bytes(png)
    evil = EVIL + '"'
    parts = [
        text(evil),
        heading(evil),
        code(evil),
        table([evil, evil], [[evil, evil]]),
        facts([(evil, evil)]),
        folded(evil, [text(evil)]),
        picture(tmp_path / "dot.png", evil, evil),
    ]
    found = Reader(page(evil, evil, [Section(evil, parts)], evil))
    assert "script" not in {tag for tag, _ in found.seen}
    # The title twice, the subtitle, the foot, the section and its link; then what each part says.
    assert found.text.count(EVIL) == 6 + (1 + 1 + 1 + 4 + 2 + 2 + 2)
    images = [attributes for tag, attributes in found.seen if tag == "img"]
    assert [image["alt"] for image in images] == [evil]
    assert base64.b64decode((images[0]["src"] or "").removeprefix("data:image/png;base64,")) == png
    assert images[0]["width"] == "1"


def test_the_page_of_a_run_has_its_figures_numbers_settings_and_origin(
    trained_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained_copy.rename(trained_copy.with_name("a <b> run"))
    assert cli.main(["figures", str(folder), "--names", "curves,classes", "--count", "2", "--seed", "5"]) == 0
    figures = [folder / "figures" / f"{name}.png" for name in ("curves", "classes")]
    assert capsys.readouterr().out.split("\n")[:2] == [str(path) for path in figures]
    about = read_folder(folder / "figures")["figures"]
    assert about["classes"]["seed"] == 5
    assert about["curves"]["command"].startswith("shortcut figures ")
    (folder / "report.json").write_text(json.dumps(EVALUATION))
    later = {**EVALUATION, "protocol": {"step": 4}, "command": "shortcut train digits"}
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "step-4.json").write_text(json.dumps(later))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "images": 512, "loss_valid": 0.5}\n')  # As a validation of the last step does.
    (folder / "broken.json").write_text('{"steps": ')
    (folder / "settings.json").write_text('{"steps": 4}')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert cli.main(["report", str(folder), "--draw", "0"]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path.name != "report.html"} == before

    found = read(folder)
    assert next(words for words in found.words if words.strip()) == "a <b> run"
    sources = [attributes["src"] or "" for tag, attributes in found.seen if tag == "img"]
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [path.read_bytes() for path in figures]
    for said in [
        "shortcut on digits, network dit, step 8 of 8",
        "100 samples per budget, ema weights, step 8, guidance 1.5, labels: balanced, seed 3.",
        "steps frechet-pixels-100 / real agreement-digitnet1-100 1 4 8 0.25 4 2 4 real 0.5",
        "squared Fréchet distance over the pixels in [-1, 1]; against 200 examples",
        "broken.json This file cannot be read",
        "In training (evaluations/) step frechet-pixels-100, 1 st.",
        "learning_rate 0.01",
        "error in training d = 0: ",
        "training from step 0 (commit ",
        "shortcut train digits",
        f"report.json (commit 0123456789ab, 1 x cpu): shortcut evaluate {EVIL}",
        "figures/curves.png, figures/classes.png (commit ",
        "Drawn at step 8.",
    ]:
        assert said in found.text, said
    assert "settings.json" not in found.text


def test_nothing_is_fetched_and_nothing_is_run(trained_copy: Path) -> None:
    write_report(trained_copy, "shortcut report")
    markup = (trained_copy / "report.html").read_text()
    for _, attributes in read(trained_copy).seen:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert (value or "").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"<script|<link|@import|url\(", markup)
    assert "default-src 'none'" in markup


def test_an_evaluation_of_older_weights_is_said_to_be_one(trained_copy: Path) -> None:
    older = {**EVALUATION, "protocol": {**EVALUATION["protocol"], "step": 4}}
    (trained_copy / "report.json").write_text(json.dumps(older))
    write_report(trained_copy, "shortcut report")
    assert (
        "step 4, guidance 1.5, labels: balanced, seed 3. The newest weights are those of step 8"
        in read(trained_copy).text
    )


def test_what_is_not_there_yet_is_said_with_the_command_for_it(trained_copy: Path) -> None:
    write_report(trained_copy, "shortcut report", ["No figures for want of <paper>."])
    found = read(trained_copy).text
    assert f"Nothing was measured yet: shortcut evaluate {trained_copy}" in found
    assert "No figures for want of <paper>." in found


def test_figures_that_are_missing_or_old_are_drawn_and_no_others(
    trained_copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []

    def draw(given: Any, folder: Path, names: list[str], progress: bool = False) -> list[Path]:
        del given, progress
        drawn.append(list(names))
        for name in names:
            folder.mkdir(exist_ok=True)
            shutil.copy(trained_copy / "figures.png", folder / f"{name}.png")
        return [folder / f"{name}.png" for name in names]

    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x96"
    (trained_copy / "figures.png").write_bytes(png)
    monkeypatch.setattr("shortcut_models.figures.folder.draw", draw)
    assert cli.main(["report", str(trained_copy), "--weights", "raw"]) == 0
    everything = ["curves", "error", "budgets", "classes", "reconstruction", "interpolation", "nearest"]
    assert drawn == [everything]
    about = read_folder(trained_copy / "figures")
    assert about["left_out"] == {}
    assert about["figures"]["error"]["command"] == f"shortcut figures {trained_copy} --weights raw"
    assert {attributes["width"] for tag, attributes in read(trained_copy).seen if tag == "img"} == {"96"}

    assert cli.main(["report", str(trained_copy), "--weights", "raw"]) == 0
    assert len(drawn) == 1
    # Others than were asked for are drawn again; the curves are those of the training, whatever the weights.
    assert cli.main(["report", str(trained_copy)]) == 0
    assert drawn.pop() == [name for name in everything if name != "curves"]
    about = read_folder(trained_copy / "figures")
    about["figures"]["error"]["step"] = 4
    (trained_copy / "figures" / "figures.json").write_text(json.dumps(about))
    (trained_copy / "figures" / "nearest.png").unlink()
    assert cli.main(["report", str(trained_copy)]) == 0
    assert drawn[1:] == [["error", "nearest"]]
    capsys.readouterr()


def test_a_run_without_weights_has_a_page_that_says_so(trained_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(trained_copy / "checkpoints")
    assert cli.main(["report", str(trained_copy)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("No figures of the model could be drawn: run folder")
    assert said[1] == str(trained_copy / "report.html")
    assert said[0] in read(trained_copy).text


def test_what_is_measured_by_several_numbers_or_over_seeds_is_told(tmp_path: Path) -> None:
    evaluation = {
        **EVALUATION,
        "protocol": {**EVALUATION["protocol"], "seeds": 3},
        "steps": {"1": {"precision-adm-100": 0.5, "kid-100": 0.25}},
        "deviation": {"1": {"precision-adm-100": 0.125, "kid-100": 0.5}},
        "ratio": {},
        "real": {},
        "about": {"metrics": {"pr-adm": {}, "kid": {}}, "reference": {"pr-adm": "9 examples", "kid": "7 examples"}},
    }
    (tmp_path / "report.json").write_text(json.dumps(evaluation))
    found = Reader(page("", "", [Section("Numbers", _file(tmp_path / "report.json", 8))], "")).text
    assert "labels: None" not in found
    assert "seed 3, means over 3 seeds from there." in found
    assert "steps precision-adm-100 kid-100 1 0.5 ± 0.125 0.25 ± 0.5" in found
    assert "pr-adm precision and recall, third neighbours (arXiv 1904.06991); against 9 examples" in found
    assert found.count("kernel Inception distance over all pairs (arXiv 1801.01401); against 7 examples") == 1


def test_a_model_folder_has_a_page_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pretrained(load(trained), tmp_path / "model", about={"source": EVIL})
    assert cli.main(["figures", str(folder), "--names", "curves"]) == 2
    assert "figure curves cannot be drawn: there is no run folder" in capsys.readouterr().err
    drawn = lambda wish, *_, **__: Drawn([], left_out(wish))  # noqa: E731
    monkeypatch.setattr("shortcut_models.figures.folder.draw_folder", drawn)
    assert cli.main(["figures", str(folder)]) == 0
    assert "curves is left out: there is no run folder" in capsys.readouterr().out
    assert cli.main(["report", str(folder), "--draw", "0"]) == 0
    found = read(folder).text
    assert "shortcut on digits, network dit, step 8" in found
    assert EVIL in found
    assert "Nothing is recorded of the training but what stands under Settings." in found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report", "{}/nowhere"], "run folder {}/nowhere does not exist"),
        (["report", "{}"], "{} is not a run folder"),
        (["report", "{}", "--draw=maybe"], "--draw maybe must be 0, 1, true or false"),
        (["figures", "{}"], "{} is not a run folder"),
        (["figures", "{}", "--names", "clases"], "figure 'clases' is unknown: did you mean 'classes'?"),
        (["figures", "{}", "--count", "many"], "--count many must be a whole number or none"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert cli.main([word.replace("{}", str(tmp_path)) for word in words]) == 2
    assert sentence.replace("{}", str(tmp_path)) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
