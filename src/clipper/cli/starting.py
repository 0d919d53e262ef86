"""How ``clipper start``, ``restart`` and ``serve`` find a server's options, and what they tell of these."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import typer

from clipper.cli.output import Output
from clipper.cli.process import READY_TIMEOUT_S, USUAL, ServerStart, checked_start
from clipper.client import STOP_TIMEOUT_S
from clipper.errors import DeadlineExceeded, InvalidArgument, Unavailable
from clipper.home import OPTIONS_NAME, make_home
from clipper.management.schemas import Status
from clipper.settings.fields import settings_of
from clipper.settings.server import ServerSettings
from clipper.settings.start_options import (
    MAX_BYTES,
    GivenSource,
    StartedBy,
    StartOptions,
    changes,
    decode,
    start_options,
    texts,
    value_text,
    with_kept,
)

RESET = "--reset-options"
_LOCK_NAME = "command.lock"
# Another command may wait for a server to stop, and then for one to be ready.
_TURN_TIMEOUT_S = STOP_TIMEOUT_S + READY_TIMEOUT_S
_POLL_S = 0.05
_SOURCES: dict[str, GivenSource] = {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}
# An address that begins so names a path.
_PATHS = ("sqlite:", "file:")


class GivenOptions(NamedTuple):
    """What the command line, the environment and a file give: values by setting, and where each came from."""

    values: dict[str, Any]
    sources: dict[str, GivenSource]


def given_options(context: typer.Context, settings: dict[str, Any], file: dict[str, Any] | None) -> GivenOptions:
    """Those of a command's ``settings`` that are no defaults. What the file says, ``file``, comes last.

    Paths are made absolute: neither the server nor the next start need run in this folder.
    """
    values = dict(file or {})
    sources: dict[str, GivenSource] = dict.fromkeys(values, "file")
    for name, value in settings.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name in _SOURCES:
            values[name], sources[name] = value, _SOURCES[source.name]
    return GivenOptions({name: _absolute(value) for name, value in values.items()}, sources)


def read_kept(home: Path) -> StartOptions | None:
    """The options of the home's last start; None if there was none.

    Raises:
        InvalidArgument: this Clipper cannot use what is kept.
        Unavailable: it cannot be read.
    """
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
        raise Unavailable(f"cannot read {path}: {error}; run this as the server's user") from error


def find_start(
    out: Output,
    home: Path,
    given: GivenOptions,
    started_by: StartedBy,
    *,
    reset: bool = False,
    has_file: bool = False,
) -> ServerStart:
    """The start of a server with the options that are given and, in the background, those that are kept.

    Tells what is kept and what differs from the last start.

    Args:
        reset: nothing that is kept is used.
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
            # What is gone is gone on purpose only if this command says so.
            tell = out.note if started_by == "start" and not has_file else out.warn
            tell(f"not as in the last start: {', '.join(told)}")
    return checked_start(home, values, options)


def kept_start(home: Path) -> ServerStart:
    """A start with what is kept, for a look at what an earlier one left; with no options if these cannot be used."""
    kept = _read_if_usable(home)
    return ServerStart(home, {} if kept is None else kept.values())


def _read_if_usable(home: Path) -> StartOptions | None:
    try:
        return read_kept(home)
    except (InvalidArgument, Unavailable):
        return None


def other_options(given: GivenOptions, now: Status) -> str:
    """What was given and is not so at the running server, as on a command line; empty if all is.

    The environment and a file are not asked for: they may be those of other servers, too.
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
    """Let one command at a time start or restart the server of a home; others wait.

    Raises:
        DeadlineExceeded: another command takes too long.
        Unavailable: the home cannot be used.
    """
    make_home(home)
    try:
        descriptor = os.open(home / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot start a server in {home}: {error}") from error
    try:
        deadline_s = time.monotonic() + _TURN_TIMEOUT_S
        while not _has_turn(descriptor):
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(
                    f"another command has started or restarted the server of {home} for {_TURN_TIMEOUT_S:.0f} s: "
                    "see clipper status"
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _has_turn(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, str) and value.startswith(_PATHS):
        scheme, _, path = value.partition(":")
        return f"{scheme}:{Path(path).expanduser().absolute()}" if path else value
    return value
