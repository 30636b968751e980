"""Where a number comes from."""

import subprocess
from pathlib import Path

import pytest

from shortcut_models import provenance


def test_a_commit_tells_whether_the_code_was_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("src/runs.py", "docs/table.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("as it was")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src" / "runs.py"))
    commit = provenance._commit()
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "docs" / "table.md").write_text("as a benchmark wrote it")
    assert provenance._commit() == commit
    (tmp_path / "src" / "runs.py").write_text("changed")
    assert provenance._commit() == commit + "+"
