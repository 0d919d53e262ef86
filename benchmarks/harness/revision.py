"""Which commit a result is of."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The measured code, and the code that measures it. Results and pages are written after a run, and change nothing of it.
MEASURED = ("src", "sdk", "benchmarks", "requirements", "pyproject.toml")
_WRITTEN_AFTER = (":(exclude)benchmarks/**/results*", ":(exclude)*.md")
# Behind a commit's id: that commit was measured with changes that no commit has.
CHANGED = "+changes"


def revision(root: Path = ROOT) -> str:
    """The last commit that changed what is measured, so that one with results or pages alone is the same; with
    ``CHANGED`` behind it where files are not as that commit has them. Empty outside of a repository.
    """
    last = _git(root, "log", "-1", "--format=%H", "--", *MEASURED, *_WRITTEN_AFTER)
    return last and last + (CHANGED if _git(root, "status", "--porcelain", "--", *MEASURED, *_WRITTEN_AFTER) else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
