"""Which commit a result says that it is of."""

import subprocess
from pathlib import Path

from benchmarks.harness.revision import CHANGED, revision


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, path: str, text: str) -> str:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", path)
    return git(folder, "rev-parse", "HEAD")


def test_results_and_pages_are_of_the_commit_that_was_measured(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert revision(tmp_path) == ""
    measured = commit(tmp_path, "src/code.py", "1")
    commit(tmp_path, "benchmarks/paper/results/figure.json", "{}")
    commit(tmp_path, "docs/page.md", "text")
    commit(tmp_path, "tests/test_code.py", "1")
    assert revision(tmp_path) == measured
    (tmp_path / "benchmarks/paper/results/figure.json").write_text("[]")
    assert revision(tmp_path) == measured
    (tmp_path / "src/code.py").write_text("2")
    assert revision(tmp_path) == measured + CHANGED
    assert commit(tmp_path, "src/code.py", "3") == revision(tmp_path) != measured


def test_outside_of_a_repository_there_is_none(tmp_path: Path) -> None:
    assert revision(tmp_path) == ""
