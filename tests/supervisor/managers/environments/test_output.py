"""The messages of uv, in a user's words."""

import pytest

from clipper.supervisor.managers.environments.uv_settings import cause_of, progress_of


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("Resolved 12 packages in 385ms", "installing 12 packages"),
        ("Resolved 1 package in 2ms", "installing 1 package"),
        ("Downloading numpy (15.0MiB)", "downloading numpy (15.0MiB)"),
        ("   Building pyspark==4.3.0", "building pyspark==4.3.0"),
        (" Downloaded numpy", None),
        (" + numpy==2.5.5", None),
        ("", None),
    ],
)
def test_progress(line: str, progress: str | None) -> None:
    assert progress_of(line) == progress


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            ["Using Python 3.12.1", "error: No solution found", "  cause: no version of numpy==99"],
            "no version of numpy==99",
        ),
        (["  × No solution found", "  ╰─▶ Because a was not found"], "Because a was not found"),
        (["error: disk full", "hint: free some"], "disk full"),
        (["Resolved 2 packages", "killed", ""], "killed"),
        ([], "uv gave no reason"),
    ],
)
def test_cause(lines: list[str], cause: str) -> None:
    assert cause_of(lines) == cause
