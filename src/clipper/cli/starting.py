"""Start a server, or replace a running one: for ``clipper start``, ``restart`` and ``serve``."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import typer

from clipper.api.schemas import Status
from clipper.cli.output import Output
from clipper.cli.process import (
    READY_TIMEOUT_S,
    USUAL,
    ServerStart,
    StartingServer,
    answers,
    checked_start,
    running,
    settled,
    spawn,
    stands_by,
)
from clipper.client import STOP_TIMEOUT_S
from clipper.client.access import running_place
from clipper.client.calls import polls
from clipper.errors import ClipperError, Conflict, DeadlineExceeded, InvalidArgument, Unavailable
from clipper.settings.fields import settings_of
from clipper.settings.home import OPTIONS_NAME, Place, is_locked, make_home, take_lock
from clipper.settings.server import PATH_SCHEMES, ServerSettings
from clipper.settings.start_options import (
    MAX_BYTES,
    GivenSource,
    StartedBy,
    StartOptions,
    changes,
    decode,
    ends_workers,
    start_options,
    texts,
    value_text,
    with_kept,
)

RESET = "--reset-options"
_LOCK_NAME = "command.lock"
# Another command may wait for a server to stop, and then for a server to be ready.
_TURN_TIMEOUT_S = STOP_TIMEOUT_S + READY_TIMEOUT_S
_SOURCES: dict[str, GivenSource] = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}


class GivenOptions(NamedTuple):
    """The values that the command line, the environment and a file give, and where each came from, by setting."""

    values: dict[str, Any]
    sources: dict[str, GivenSource]


def given_options(context: typer.Context, settings: dict[str, Any], file: dict[str, Any] | None) -> GivenOptions:
    """Collect the ``settings`` of a command that are not defaults. They take precedence over those of the ``file``.

    Paths are made absolute, because the server and the next start may run in other folders.
    """
    values = dict(file or {})
    sources: dict[str, GivenSource] = dict.fromkeys(values, "file")
    for name, value in settings.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name in _SOURCES:
            values[name], sources[name] = value, _SOURCES[source.name]
    return GivenOptions({name: _absolute(value) for name, value in values.items()}, sources)


def read_kept(home: Path) -> StartOptions | None:
    """Read the options of the home's last start, if there was one. Raises InvalidArgument or Unavailable."""
    path = home / OPTIONS_NAME
    try:
        with path.open("rb") as file:
            return decode(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        return None
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{path}, which keeps the options of the last start, {error}. To start with the options that you give "
            f"and no others, add {RESET}"
        ) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}; run this as the server's user") from error


def find_start(
    out: Output,
    home: Path,
    given: GivenOptions,
    started_by: StartedBy,
    *,
    reset: bool = False,
    has_file: bool = False,
) -> ServerStart:
    """Decide the options of a start: the given ones and, for a server in the background, the kept ones.

    It prints which options are kept, and which differ from the last start. ``reset``: whether kept options are ignored.
    """
    options = start_options(given.values, given.sources, started_by)
    values, kept = given.values, _read_if_usable(home) if reset else read_kept(home)
    if kept is not None:
        if started_by == "start" and not reset:
            options = with_kept(options, kept, has_file=has_file)
            values = options.values() | given.values
            if used := [text for name, text in texts(options) if options.options[name].is_kept]:
                out.note(f"as in the last start: {' '.join(used)} ({RESET} leaves these out)")
        if told := changes(kept, options):
            # Only a user of a command that keeps options leaves others out on purpose.
            tell = out.note if started_by == "start" and not has_file else out.warn
            tell(f"not as in the last start: {', '.join(told)}")
    return checked_start(home, values, options)


def kept_start(home: Path) -> ServerStart:
    """Return a start with the kept options, or with none if they cannot be used, to find an earlier one's orphans."""
    kept = _read_if_usable(home)
    return ServerStart(home, {} if kept is None else kept.values())


def _read_if_usable(home: Path) -> StartOptions | None:
    try:
        return read_kept(home)
    except (InvalidArgument, Unavailable):
        return None


def other_options(given: GivenOptions, now: Status) -> str:
    """List the given options that the running server does not have, as on a command line; empty if it has all.

    Options of the environment do not count: they may be meant for other servers.
    """
    urls = {"query_port": now.query_url, "management_port": now.management_url}
    told = []
    for described in settings_of(ServerSettings):
        name, flag = described.name, described.flag
        if given.sources.get(name) not in ("command line", "file") or name in ("store", "registry"):
            continue
        value = given.values[name]
        if name in urls:
            differs = value not in (0, urlsplit(urls[name]).port)
            differs = differs and (given.sources[name] == "command line" or value != getattr(USUAL, name))
        else:
            shown = now.options.get(flag.removeprefix("--"))
            is_usual = shown is not None and shown.source == "default"
            usual = value_text(described.default)
            differs = shown is not None and value_text(value) != (usual if is_usual else shown.value)
        if differs:
            told.append(flag if value is True else f"{flag} {value_text(value)}")
    return " and ".join(told)


@contextmanager
def in_turn(home: Path) -> Iterator[None]:
    """Let one command at a time start or restart the server of a home; others wait. Raises DeadlineExceeded if another
    command takes too long; Unavailable if the home cannot be used.
    """
    make_home(home)
    try:
        descriptor = os.open(home / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot start a server in {home}: {error}") from error
    try:
        if not take_lock(descriptor, _TURN_TIMEOUT_S):
            raise DeadlineExceeded(
                f"another command has started or restarted the server of {home} for {_TURN_TIMEOUT_S:.0f} s: "
                "see clipper status"
            )
        yield
    finally:
        os.close(descriptor)


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, str) and value.startswith(PATH_SCHEMES):
        scheme, _, path = value.partition(":")
        return f"{scheme}:{Path(path).expanduser().absolute()}" if path else value
    return value


# A supervisor that hands over answers the calls in progress first. One that hangs is killed after this time.
_HAND_OVER_TIMEOUT_S = 10.0


def started(server: ServerStart, *, takes_over: bool = False) -> Status:
    """Start a server in the background; return its status once it answers. If it fails, workers left before go on."""
    process = spawn(server)
    try:
        return process.wait_until_ready()
    except BaseException as error:
        if not takes_over:
            # Also on ^C: a half-started server would block the next start.
            process.stop()
        elif isinstance(error, ClipperError):
            process.kill()
        raise


def replaced(out: Output, home: Path, given: GivenOptions, *, reset: bool, has_file: bool) -> Status:
    """Replace the supervisor of a home, and return the status of the new one.

    One that a service manager or ``clipper serve`` watches starts again in its own process, with its own command line.
    Any other ends, and another is started. If that fails with other options than before, one is started with those.
    Raises Conflict if options are given for a server whose options are not ours to change, or it keeps none, or it
    stops; ClipperError if the new one cannot be started.
    """
    place = _place(home)
    if place is None:
        if is_locked(home):
            settled(home)  # it starts or stops, or raises that it hangs
            place = _place(home)
        if place is None:
            with out.progress("starting the server"):
                return started(find_start(out, home, given, "start", reset=reset, has_file=has_file))
    with out.progress("asking the server"):
        now = running(home)
    if now is not None and now.stopping:
        raise Conflict(f"the server of {home} was told to stop: wait for its end, or clipper stop, then clipper start")
    if place.started_by in ("foreground", "serve"):
        # The environment's options may be meant for other servers.
        if reset or any(source != "environment" for source in given.sources.values()):
            what = "clipper serve" if place.started_by == "serve" else "clipper start --foreground"
            raise Conflict(
                f"the server of {home} was started by {what}, whose command line has its options: change them there, "
                "such as in its unit or compose file; clipper restart without options replaces it as it is"
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
        out.warn(f"{', '.join(ending)} changes: all workers are replaced at once, and lose their open queries")
    with out.progress("replacing the server"):
        _hand_over(home, place.pid)
        try:
            return started(server, takes_over=True)
        except ClipperError as error:
            if kept is None or server.options is None or not changes(kept, server.options):
                raise Unavailable(f"{error}\nworkers and models keep running: see clipper status") from error
            out.warn(f"the server cannot start with the given options, and is started without them: {error}")
            started(_as_before(home, kept, given), takes_over=True)
            raise


def _as_before(home: Path, kept: StartOptions, given: GivenOptions) -> ServerStart:
    """Return a start with the options of the last one; the given options may supply its secrets."""
    secrets = {name: given.values[name] for name, one in kept.options.items() if one.is_secret and name in given.values}
    options = with_kept(start_options(secrets, given.sources, "start"), kept, has_file=False)
    return checked_start(home, options.values() | secrets, options)


def _place(home: Path) -> Place | None:
    """Return the place of the supervisor that holds the home; None if no supervisor does."""
    with suppress(Unavailable):
        return running_place(home)
    return None


def _hand_over(home: Path, pid: int) -> None:
    """End the supervisor. The signal also ends an older one, which does not know it."""
    for number in (signal.SIGUSR1, signal.SIGKILL):
        _signal(pid, number)
        for _ in polls(_HAND_OVER_TIMEOUT_S):
            if not is_locked(home):
                return
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
    for _ in polls(READY_TIMEOUT_S):
        place = _place(home)
        is_new = place is not None and place.started_at > before.started_at
        if is_new and (now := running(home)) is not None and (answers(now) or stands_by(now)):
            return now
    raise DeadlineExceeded(
        f"the server of {home} was told to start again, and does not answer after {READY_TIMEOUT_S:.0f} s; workers "
        f"and models keep running: see clipper status and {home / 'logs'}"
    )


@contextmanager
def foreground_server(out: Output, start: ServerStart) -> Iterator[StartingServer]:
    """Run a server that is stopped when ^C, SIGTERM or an error ends the block, or when this process is killed."""
    reading, writing = os.pipe()
    try:
        server = spawn(start, reading)
        os.close(reading)
        try:
            yield server
        except KeyboardInterrupt:
            pass
        finally:
            with out.progress("draining"):
                server.stop()
    finally:
        # If the user interrupts again while the server drains, this is the second request.
        os.close(writing)
