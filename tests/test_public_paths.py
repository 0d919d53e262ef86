"""The paths by which users' own policies, models and programs import what lies in a room."""

import subprocess
import sys

import pytest

from tests.waiting import TIMEOUT_S


@pytest.mark.parametrize(
    "code",
    [
        "from clipper.policies import Choice, Policy, QueryView, Totals",
        "from clipper.selection.policies import Choice, Increments, JudgedQuery, Outlook, Policy",
        "import clipper.selection.policies as policies, clipper.policies; assert policies is clipper.policies",
        "from clipper.runtime.trace import current_trace; assert current_trace() is None",
        "import clipper.runtime.trace; assert clipper.runtime.trace.current_trace() is None",
    ],
)
def test_what_users_import_is_there(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_S)


def test_the_old_name_of_the_runtime_runs_it() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "clipper.runtime", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    assert "--listen" in run.stdout
