"""Shows and ends the workers and containers that a dead supervisor left running."""

from pathlib import Path

from clipper.cli.process import ServerStart, run_program
from clipper.client import STOP_TIMEOUT_S
from clipper.errors import ClipperError, DeadlineExceeded, Unauthorized, Unavailable
from clipper.settings.home import RUN_NAME, Orphan, is_locked, lock_holder

# The search may wait for a busy dockerd. Ended workers first answer their open queries.
_LOOK_TIMEOUT_S = 30.0


def look(start: ServerStart) -> list[Orphan]:
    """List what a supervisor that is gone left in a home. Raises Unavailable or DeadlineExceeded if that fails."""
    if is_locked(start.home) or not (start.home / RUN_NAME).is_dir():
        return []
    return _run(start, _LOOK_TIMEOUT_S)


def end(start: ServerStart) -> list[Orphan]:
    """End what runs in a home whose supervisor is gone, and return what was ended.

    Raises Unavailable or DeadlineExceeded if it cannot be ended, e.g. because a server is starting and takes it over.
    """
    return _run(start, STOP_TIMEOUT_S, "--end")


def told(home: Path, found: list[Orphan]) -> str:
    """Return a sentence on what still runs, and what to do."""
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
    """Return the error of a command that got no answer; it names the supervisor if one holds the home."""
    if isinstance(error, Unauthorized) or not is_locked(home):
        return error
    return Unavailable(
        f"a supervisor (pid {lock_holder(home) or 'unknown'}) has {home} and does not answer: it is starting or "
        f"stopping, or it hangs; see {home / 'logs' / 'supervisor.log'}. If it is killed, its workers go on answering, "
        f"and clipper start takes them over ({error})"
    )


def rows(found: list[Orphan]) -> list[tuple[str, object, str]]:
    """Return the rows of ``clipper status``: each orphan, its process, and where it runs."""
    places = [f"in {one.runs}" if one.address is None else f"answers queries at {one.address}" for one in found]
    return [(one.name, one.pid, place) for one, place in zip(found, places)]


def _run(start: ServerStart, timeout_s: float, *options: str) -> list[Orphan]:
    try:
        argv = [*start.argv("clipper.supervisor.orphans"), *options]
        return run_program(argv, list[Orphan], timeout_s, start.environment())
    except DeadlineExceeded:
        raise DeadlineExceeded(
            f"the processes that the supervisor of {start.home} left could not be dealt with within {timeout_s:.0f} s: "
            f"see {start.home / 'logs'}"
        ) from None
