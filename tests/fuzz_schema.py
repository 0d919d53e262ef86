"""Schemathesis against the management API: calls made of its own description, and answers that have to fit it."""

import subprocess
import sys
from pathlib import Path

from tests.supervisor.live_server import Server

# Before it is taken to hang, besides the time that it is given.
SPARE_S = 240.0
# Which names, ranges and artifacts are taken is more than the description says.
NOT_CHECKED = "positive_data_acceptance"


def check_answers(server: Server, examples: int, seconds: float | None = None) -> str:
    """All calls but ``POST /stop``; returns what was done.

    ``examples``: of each call, once, or again and again for so many seconds.

    Raises:
        AssertionError: an answer is a 5xx, or is not as the description says; its message tells which.
    """
    url = server.place.management_url
    argv = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/schema/openapi.json"]
    argv += ["--header", f"Authorization: Bearer {server.token}", "--exclude-path", "/stop", "--phases", "fuzzing"]
    argv += ["--exclude-checks", NOT_CHECKED, "--max-examples", str(examples)]
    argv += ["--generation-database", "none", "--no-color"]
    if seconds is not None:
        argv += ["--max-time", f"{seconds:.0f}"]
    hangs_after_s = (seconds or 0.0) + SPARE_S
    done = subprocess.run(argv, cwd=server.home, capture_output=True, text=True, check=False, timeout=hangs_after_s)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = [line.strip() for line in done.stdout.splitlines() if "generated" in line and "passed" in line]
    assert cases, done.stdout[-8000:]
    return f"Schemathesis: {cases[-1]}"
