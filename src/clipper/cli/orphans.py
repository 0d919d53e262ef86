"""What workers and containers a dead supervisor has left: shown, and ended."""

import subprocess
from pathlib import Path

import msgspec

from clipper.cli.process import ServerStart
from clipper.client import STOP_TIMEOUT_S
from clipper.errors import ClipperError, DeadlineExceeded, Unauthorized, Unavailable
from clipper.home import RUN_NAME, Orphan, is_locked, lock_holder

# A look asks dockerd at most, which may be busy. An end lets workers answer their open queries, as a stop does.
_LOOK_TIMEOUT_S = 30.0


def look(start: ServerStart) -> list[Orphan]:
    """What runs in a home whose supervisor is gone; nothing if the supervisor is there.

    Raises:
        Unavailable, DeadlineExceeded: it cannot be looked for.
    """
    if is_locked(start.home) or not (start.home / RUN_NAME).is_dir():
        return []
    return _run(start, _LOOK_TIMEOUT_S)


def end(start: ServerStart) -> list[Orphan]:
    """End what runs in a home whose supervisor is gone, and return what that was.

    Raises:
        Unavailable, DeadlineExceeded: it cannot be ended, e.g. because a server is starting and takes it over.
    """
    return _run(start, STOP_TIMEOUT_S, "--end")


def told(home: Path, found: list[Orphan]) -> str:
    """One sentence about what still runs, and what to do."""
    workers = sum(orphan.address is not None for orphan in found)
    counts = [
        f"{count} {noun}{'s' * (count != 1)}"
        for count, noun in ((workers, "worker"), (len(found) - workers, "container"))
        if count
    ]
    verb = "run" if len(found) != 1 else "runs"
    return (
        f"the supervisor of {home} is gone, and {' and '.join(counts)} still {verb}: clipper start takes over what "
        "runs, and clipper stop ends it"
    )


def explained(home: Path, error: ClipperError) -> ClipperError:
    """The error of a command that got no answer; it says so if a supervisor has the home all the same."""
    if isinstance(error, Unauthorized) or not is_locked(home):
        return error
    return Unavailable(
        f"a supervisor (pid {lock_holder(home) or 'unknown'}) has {home} and does not answer: it is starting or "
        f"stopping, or it hangs; see {home / 'logs' / 'supervisor.log'}. If it is killed, its workers go on answering, "
        f"and clipper start takes them over ({error})"
    )


def rows(found: list[Orphan]) -> list[tuple[str, object, str]]:
    """The rows of ``clipper status`` then: what runs, its process, and where."""
    return [
        (
            orphan.name,
            orphan.pid,
            f"in {orphan.runs}" if orphan.address is None else f"answers queries at {orphan.address}",
        )
        for orphan in found
    ]


def _run(start: ServerStart, timeout_s: float, *options: str) -> list[Orphan]:
    argv = start.argv("clipper.supervisor.orphans")
    try:
        done = subprocess.run(
            [*argv, *options],
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=start.environment(),
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(
            f"what the supervisor of {start.home} left could not be dealt with within {timeout_s:.0f} s: "
            f"see {start.home / 'logs'}"
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise Unavailable(said[-1].removeprefix("clipper: "))
    return msgspec.json.decode(done.stdout, type=list[Orphan])
