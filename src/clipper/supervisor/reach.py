"""Checks that the user that models run as can reach what a model needs, before any model fails."""

import os
import subprocess
import sys
from pathlib import Path

from clipper.base.processes.folder import passed_on
from clipper.base.run_as import RunAs, credentials
from clipper.errors import Unavailable
from clipper.supervisor.folders import HomeFolders

# It imports numpy, on a machine that may be busy.
TIMEOUT_S = 60.0


def check_reach(run_as: RunAs, home: HomeFolders) -> None:
    """
    Raises:
        Unavailable: the user cannot run this Python, or cannot reach Clipper's code or the home.
    """
    environ = passed_on(os.environ) | {"PYTHONPATH": str(home.python_path), "HOME": "/"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import clipper.model.runtime.loop"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
            cwd="/",
            env=environ,
            **credentials(run_as),
        )
        lines = done.stderr.decode(errors="replace").splitlines()
        cause = None if done.returncode == 0 else lines[-1] if lines else f"it ends with code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        cause = str(error)
    places = {
        "the home": home.scratch,
        "its sockets": home.sockets,
        "this Python": Path(sys.executable),
        "its installation": Path(sys.base_prefix),
        "Clipper's code": Path(__file__),
    }
    closed = {what: folder for what, path in places.items() if (folder := _closed_on_the_way(path, run_as))}
    if cause is None and not closed:
        return
    where = "; ".join(f"{folder} on the way to {what} is closed to that user" for what, folder in closed.items())
    raise Unavailable(
        f"models cannot run as {run_as.user}: {where or cause}; open these folders to that user (chmod o+x), or put "
        "the home or the installation elsewhere"
    )


def _closed_on_the_way(path: Path, run_as: RunAs) -> Path | None:
    """The first folder above ``path`` that the user may not pass, by its mode."""
    for folder in reversed(path.resolve().parents):
        found = folder.stat()
        bit = 0o100 if found.st_uid == run_as.uid else 0o010 if found.st_gid == run_as.gid else 0o001
        if not found.st_mode & bit:
            return folder
    return None
