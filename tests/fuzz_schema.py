"""Schemathesis against the management API: calls made of its own description, and answers that have to fit it."""

import subprocess
import sys
from pathlib import Path

from live_server import Server

# Of these it makes at most so many of each call; what it may take is bounded by time as well.
MAX_EXAMPLES = 20
# For reading the description and telling what was found.
SPARE_S = 60.0
# Which names, ranges and artifacts are taken is more than the description says.
NOT_CHECKED = "positive_data_acceptance"


def check_answers(server: Server, seconds: float) -> str:
    """All calls but ``POST /stop``, for so many seconds at most; returns what was done.

    Raises:
        AssertionError: an answer is a 5xx, or is not as the description says; its message tells which.
    """
    url = server.place.management_url
    argv = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/schema/openapi.json"]
    argv += ["--header", f"Authorization: Bearer {server.token}", "--exclude-path", "/stop", "--phases", "fuzzing"]
    argv += ["--exclude-checks", NOT_CHECKED, "--max-examples", str(MAX_EXAMPLES), "--max-time", f"{seconds:.0f}"]
    argv += ["--generation-database", "none", "--no-color"]
    done = subprocess.run(argv, cwd=server.home, capture_output=True, text=True, check=False, timeout=seconds + SPARE_S)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = [line.strip() for line in done.stdout.splitlines() if "generated" in line and "passed" in line]
    assert cases, done.stdout[-8000:]
    return f"Schemathesis: {cases[-1]}"
