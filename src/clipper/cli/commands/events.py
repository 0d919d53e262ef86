"""``clipper events``."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Annotated, Any

import msgspec
import typer

from clipper.api.events import MAX_EVENTS_AT_ONCE, Event, Kind
from clipper.cli.options import number, one_of, shown_time
from clipper.cli.output import Output
from clipper.cli.server import Server
from clipper.client import Clipper
from clipper.errors import Unavailable

# How often a server is asked for new events.
FOLLOW_EVERY_S = 1.0


def events(
    server: Server,
    kind: Annotated[Kind | None, one_of(Kind, help="Only events of this kind.", show_default="all")] = None,
    subject: Annotated[
        str | None, typer.Option(help='Only events on this, e.g. "model digits", "application digits", server.')
    ] = None,
    who: Annotated[
        str | None,
        typer.Option(help="Only changes by this token, by operator (the server's own token) or by clipper itself."),
    ] = None,
    limit: Annotated[
        int, number(int, "--limit", "-n", help="How many events, the latest.", least=1, most=MAX_EVENTS_AT_ONCE)
    ] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then show further events, until Ctrl-C.")] = False,
) -> None:
    """Show what happened on the server, oldest first: deployments, rollbacks, restarts, scaling, changes."""
    out = server.out
    found = server.clipper.events(limit=limit, kind=kind, subject=subject, who=who)
    if not follow:
        rows = [
            (shown_time(one.time_s), one.level, one.kind, one.subject, one.message, _by(one)) for one in found.events
        ]
        columns = ("when", "level", "kind", "subject", "what happened", "who")
        out.table(found, columns, rows, "nothing has happened yet")
        return
    with suppress(KeyboardInterrupt):  # how one stops it
        for one in chain(found.events, _new(server.clipper, out, found.next, kind=kind, subject=subject, who=who)):
            _write(out, one)


def _new(clipper: Clipper, out: Output, after: int, **only: Any) -> Iterator[Event]:
    """Yield events from now on. Waits for a server that is away, since it may be started again."""
    is_away = False
    while True:
        time.sleep(FOLLOW_EVERY_S)
        try:
            found = clipper.events(after, limit=MAX_EVENTS_AT_ONCE, **only)
        except Unavailable as error:
            if not is_away:
                out.warn(f"{error}; waiting for it")
            is_away = True
            continue
        is_away = False
        yield from found.events
        after = found.next


def _write(out: Output, one: Event) -> None:
    if out.as_json:
        sys.stdout.write(msgspec.json.encode(one).decode() + "\n")
    else:
        by = f"  ({_by(one)})" if one.who else ""
        out.line(f"{shown_time(one.time_s)}  {one.level:<7}  {one.kind:<11}  {one.subject}: {one.message}{by}")
    sys.stdout.flush()


def _by(one: Event) -> str:
    return one.who if one.address is None else f"{one.who} from {one.address}"
