"""Starts a server, and replaces one that runs while what it runs goes on."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from clipper.cli.output import Output
from clipper.cli.process import (
    READY_TIMEOUT_S,
    ServerStart,
    answers_or_stands_by,
    checked_start,
    running,
    settled,
    spawn,
)
from clipper.cli.starting import RESET, GivenOptions, find_start, read_kept
from clipper.errors import ClipperError, Conflict, DeadlineExceeded, Unavailable
from clipper.home import Place, is_locked, lock_holder, read_place
from clipper.management.schemas import Status
from clipper.settings.start_options import StartOptions, changes, ends_workers, start_options, with_kept

# A supervisor that is asked to hand over answers the calls under way first. One that hangs is killed after this.
_HAND_OVER_TIMEOUT_S = 10.0
_POLL_S = 0.02


def started(server: ServerStart) -> Status:
    """Start a server in the background, and return its status once it answers queries."""
    process = spawn(server)
    try:
        return process.wait_until_ready()
    except BaseException:
        # Also on ^C: a half-started server would block the next start.
        process.stop()
        raise


def replaced(out: Output, home: Path, given: GivenOptions, *, reset: bool, has_file: bool) -> Status:
    """Replace the supervisor of a home, and return the status of the new one.

    One that a service manager or ``clipper serve`` watches starts again in its own process, with its own command line.
    Any other ends, and another is started. If that fails with other options than before, one is started with those.

    Raises:
        Conflict: options are given for a server whose options are not ours to change, or it keeps none, or it stops.
        ClipperError: the new one cannot be started.
    """
    place = _place(home)
    if place is None:
        if is_locked(home):
            settled(home)  # it starts or stops, or raises that it hangs
            place = _place(home)
        if place is None:
            with out.progress("starting the server"):
                return started(find_start(out, home, given, "start", reset=reset, has_file=has_file))
    with out.progress("asking the server, which may hang"):
        now = running(home)
    if now is not None and now.stopping:
        raise Conflict(f"the server of {home} was told to stop: wait for its end, or clipper stop, then clipper start")
    if place.started_by in ("foreground", "serve"):
        # The environment may say things of other servers, too.
        if reset or any(source != "environment" for source in given.sources.values()):
            what = "clipper serve" if place.started_by == "serve" else "clipper start --foreground"
            raise Conflict(
                f"the server of {home} was started by {what}, whose command line has its options: change them there; "
                "clipper restart without options replaces it as it is"
            )
        with out.progress("replacing the server"):
            return _started_again(home, place)
    kept = read_kept(home) if not reset else None
    if kept is None and not reset:
        raise Conflict(
            f"the server of {home} is of a Clipper that kept no options: give all of its options again, with {RESET}"
        )
    server = find_start(out, home, given, "start", reset=reset, has_file=has_file)
    if kept is not None and server.options is not None and (ending := ends_workers(kept, server.options)):
        out.warn(f"all workers are replaced at once, with the queries that they have then: {', '.join(ending)} changes")
    with out.progress("replacing the server"):
        _hand_over(home, place.pid)
        try:
            return _taken_over(server)
        except ClipperError as error:
            if kept is None or server.options is None or not changes(kept, server.options):
                raise Unavailable(f"{error}\nwhat runs goes on: see clipper status") from error
            out.warn(f"the server cannot be started with the options that were given, and is started without: {error}")
            _taken_over(_as_before(home, kept, given))
            raise


def _as_before(home: Path, kept: StartOptions, given: GivenOptions) -> ServerStart:
    """The start with the options of the last one, whose secrets may be among those that are given."""
    secrets = {name: given.values[name] for name, one in kept.options.items() if one.is_secret and name in given.values}
    options = with_kept(start_options(secrets, given.sources, "start"), kept, has_file=False)
    return checked_start(home, options.values() | secrets, options)


def _taken_over(server: ServerStart) -> Status:
    """As ``started``, of a server that takes over what runs, which goes on if it fails."""
    process = spawn(server)
    try:
        return process.wait_until_ready()
    except ClipperError:
        process.kill()
        raise


def _place(home: Path) -> Place | None:
    """Where the supervisor is that has the home; None if none has."""
    if not is_locked(home):
        return None
    with suppress(Unavailable):
        place = read_place(home)
        if place.pid == lock_holder(home):
            return place
    return None


def _hand_over(home: Path, pid: int) -> None:
    """End the supervisor. An older one, which does not know the signal, ends by it, which comes to the same."""
    for number in (signal.SIGUSR1, signal.SIGKILL):
        _signal(pid, number)
        deadline_s = time.monotonic() + _HAND_OVER_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if not is_locked(home):
                return
            time.sleep(_POLL_S)
    raise DeadlineExceeded(f"the supervisor of {home} (pid {pid}) has not ended: see {home / 'logs'}")


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended meanwhile
    except PermissionError as error:
        raise Unavailable(f"the supervisor (pid {pid}) is another user's: run this as the server's user") from error


def _started_again(home: Path, before: Place) -> Status:
    _signal(before.pid, signal.SIGUSR1)
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        place = _place(home)
        is_new = place is not None and place.started_at > before.started_at
        if is_new and (now := running(home)) is not None and answers_or_stands_by(now):
            return now
        time.sleep(_POLL_S)
    raise DeadlineExceeded(
        f"the server of {home} was told to start again, and does not answer after {READY_TIMEOUT_S:.0f} s; what runs "
        f"goes on: see clipper status and {home / 'logs'}"
    )
