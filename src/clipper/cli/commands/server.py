"""``clipper start``, ``restart``, ``stop``, ``status`` and ``dashboard``."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from clipper.api.dashboard.files import ROOT
from clipper.api.schemas import LeaseStatus, OptionStatus, Status
from clipper.base.extras import has_grpc
from clipper.base.tls.expiry import day
from clipper.cli import orphans
from clipper.cli.options import AsJson, Home, shown_time
from clipper.cli.output import Output
from clipper.cli.process import ServerStart, become, settled, wait_until_gone
from clipper.cli.server import Server
from clipper.cli.settings import Given, options_of, with_settings
from clipper.cli.starting import RESET, find_start, given_options, in_turn, kept_start, other_options, replaced, started
from clipper.client import Clipper
from clipper.client.access import token_for_home, token_for_url
from clipper.errors import ClipperError, Conflict, DeadlineExceeded, Unauthorized, Unavailable
from clipper.settings.home import Orphan, find_home, read_place, read_token
from clipper.settings.server import ServerSettings
from clipper.settings.start_options import StartedBy

if TYPE_CHECKING:
    from clipper.cli.commands.manifest_file import ManifestFile

Config = Annotated[
    Path | None,
    typer.Option(
        help="A file with the server's settings, and the models, applications and keys to apply once it runs.",
        metavar="FILE",
        show_default="none",
        readable=False,
    ),
]
ResetOptions = Annotated[bool, typer.Option(RESET, help="Use only the given options, and none of the last start.")]
# The errors if the server of a home does not answer, or another server has its port.
_NO_ANSWER = (Unavailable, DeadlineExceeded, Unauthorized)
_NEXT = "next: clipper deploy NAME MODEL, clipper app create NAME --model NAME"


@with_settings(settings=options_of(ServerSettings))
def start(
    context: typer.Context,
    home: Home = None,
    *,
    settings: Given,
    config: Config = None,
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground",
            help="Run in the foreground, for a service manager, with only the given options.",
        ),
    ] = False,
    reset_options: ResetOptions = False,
    as_json: AsJson = False,
) -> None:
    """Start the server in the background, with the given options and those of its last start."""
    out, root = Output(as_json), find_home(home)
    file = _file(config)
    given = given_options(context, settings, None if file is None else file.server)
    with in_turn(root):
        now = settled(root)
        if now is not None and (other := other_options(given, now)):
            raise Conflict(
                f"Clipper is running already in {root}, and not with {other}: queries at {now.query_url}, "
                f"management at {now.management_url}; clipper restart with these options changes them, or give another "
                "--home"
            )
        what = "is running" if now is None else "is running already"
        if now is None:
            by: StartedBy = "foreground" if foreground else "start"
            server = find_start(out, root, given, by, reset=reset_options, has_file=file is not None)
            if foreground:
                if file is not None and not file.is_of_server_alone:
                    out.warn(f"the server takes only its settings from {config}: clipper apply {config} does the rest")
                become(server)
            with out.progress("starting the server"):
                now = started(server)
        elif read_place(root).started_by == "serve":
            out.warn("this server ends with the clipper serve that started it: end that by ^C to start one that stays")
    print_running(out, now, what)
    _apply(out, root, file)


@with_settings(settings=options_of(ServerSettings))
def restart(
    context: typer.Context,
    home: Home = None,
    *,
    settings: Given,
    config: Config = None,
    reset_options: ResetOptions = False,
    as_json: AsJson = False,
) -> None:
    """Replace the server by this version of Clipper, or change its options, while workers and models keep answering.

    It has the given options and those of its last start. A server that does not run is started.
    """
    out, root = Output(as_json), find_home(home)
    file = _file(config)
    given = given_options(context, settings, None if file is None else file.server)
    with in_turn(root):
        now = replaced(out, root, given, reset=reset_options, has_file=file is not None)
    print_running(out, now, "is running")
    out.warn(*now.problems)
    _apply(out, root, file)


def _file(config: Path | None) -> "ManifestFile | None":
    if config is None:
        return None
    # No other command pays for its libraries.
    from clipper.cli.commands.manifest_file import ManifestFile

    return ManifestFile(config)


def _apply(out: Output, home: Path, file: "ManifestFile | None") -> None:
    """Apply the rest of a file to the server of a home."""
    if file is None:
        return
    with Clipper.connect(home=home, token=read_token(home)) as clipper:
        result = file.apply(clipper, out)
    out.line(result.text)
    if not result.is_done:
        raise typer.Exit(1)


def print_running(out: Output, now: Status, what: str) -> None:
    running, at, lease = f"Clipper {what} (pid {now.pid})", f"management at {now.management_url}", now.lease
    if lease is not None and lease.role == "standby" and lease.leader is None:
        waits = f"it waits for the registry {lease.registry}, and leads or stands by as soon as that can be used"
        out.done(now, f"{running}, {at}. It answers no queries: {waits}", "next: clipper status, clipper logs")
        out.warn(*now.problems)
        return
    if lease is not None and lease.role == "standby":
        text = f"{running} as a standby, {at}; the leader is {lease.leader}"
        out.done(now, text, "next: clipper status, on this server or on the leader")
        return
    out.done(now, f"{running}: queries at {now.query_url}, gRPC {_grpc(now)}, {at}", _NEXT)
    if not now.ready or now.applications_ready not in (None, now.applications):
        out.warn(f"some models do not answer: {'; '.join(now.problems)}; see clipper replica list")


def _grpc(now: Status) -> str:
    if now.grpc_address is not None:
        return f"at {now.grpc_address}"
    return "off" if has_grpc() else "off (it needs: pip install 'clipper-serving[grpc]')"


def stop(server: Server) -> None:
    """Stop the server, after it has answered the queries in flight."""
    out = server.out
    try:
        with out.progress("draining"):
            pid = server.clipper.status().pid
            stopping = server.clipper.stop()
            if server.url is None:
                wait_until_gone(find_home(server.home), pid, stopping.drain_delay_s)
    except _NO_ANSWER as error:
        start, _ = _left_by(server, error)
        with out.progress("draining the processes that the supervisor left"):
            orphans.end(start)
    out.done({"stopped": True}, "Clipper has stopped; its models and applications are kept", "next: clipper start")


def status(
    server: Server,
    history: Annotated[
        bool,
        typer.Option("--history", help="Show what the server saw and decided since its start, oldest first."),
    ] = False,
) -> None:
    """Show the server's processes, addresses and counts, or each step of its latest history."""
    out = server.out
    try:
        if history:
            events = server.clipper.history()
            times = [datetime.fromtimestamp(event.at).astimezone() for event in events]
            rows = [
                (at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], event.subject, event.text)
                for at, event in zip(times, events)
            ]
            out.table(events, ("when", "what", "happened"), rows, "nothing has happened yet")
            return
        now = server.clipper.status()
    except _NO_ANSWER as error:
        start, left = _left_by(server, error)
        out.table({"ready": False, "orphans": left}, ("what", "pid", "where"), orphans.rows(left), "")
        raise Unavailable(orphans.told(start.home, left)) from error
    out.table(now, ("what", "value"), status_rows(now), "")


def _left_by(server: Server, error: ClipperError) -> tuple[ServerStart, list[Orphan]]:
    """Return what the home's supervisor left, if it is gone, and how it was started; else raise ``error``."""
    if server.url is not None:
        raise error
    start = kept_start(find_home(server.home))
    if not (left := orphans.look(start)):
        raise orphans.explained(start.home, error) from error
    return start, left


def _counts(replicas: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(replicas.items())) or "none"


def _leader(lease: LeaseStatus) -> str:
    if lease.leader is None or lease.since is None:
        return f"not known; this server is a standby of {lease.registry}"
    since = shown_time(lease.since)
    if lease.role == "standby":
        return f"{lease.leader}, since {since}, epoch {lease.epoch}; this server is a standby"
    age = "" if lease.renewed_s_ago is None else f", lease renewed {lease.renewed_s_ago:.1f} s ago"
    standby = "no server stands by" if lease.standby is None else f"standby {lease.standby}"
    return f"this server, since {since}, epoch {lease.epoch}{age}; {standby}"


# Options with rows of their own, because they say who can reach the server and read its answers.
_ACCESS = ("api-keys", "tls-cert", "tls-key", "tls-client-ca", "host", "management-host")
# Ports, which the status shows with its addresses.
_PLACES = ("query-port", "grpc-port", "management-port")


def _option_rows(options: Mapping[str, OptionStatus]) -> list[tuple[str, object]]:
    """Return a row on who can reach the server, and one for each option that is not the default, with its source."""
    if not options:
        return []  # a server of an older Clipper says nothing of them

    def shown(name: str) -> str:
        option = options[name]
        return f"{'not shown' if option.value is None else option.value} ({option.source})"

    keys = "required" if options["api-keys"].value == "yes" else "required by applications that say so"
    tls = f"certificate {shown('tls-cert')}" if options["tls-cert"].source != "default" else "off (default)"
    if options["tls-client-ca"].source != "default":
        tls += f"; clients need one of {shown('tls-client-ca')}"
    return [
        ("API keys", f"{keys} ({options['api-keys'].source})"),
        ("TLS", tls),
        ("hosts", f"queries on {shown('host')}, management on {shown('management-host')}"),
        *(
            (f"--{name}", shown(name))
            for name, option in options.items()
            if option.source != "default" and name not in (*_ACCESS, *_PLACES)
        ),
    ]


def status_rows(now: Status) -> list[tuple[str, object]]:
    ready = now.applications_ready
    some = "" if ready in (None, now.applications) else f", of which {ready} can answer"
    return [
        ("version", now.version),
        ("pid", now.pid),
        ("home", now.home),
        ("queries", now.query_url),
        ("gRPC", _grpc(now)),
        ("management", now.management_url),
        ("up", f"{now.uptime_s:.0f} s"),
        ("ready", "yes" if now.ready else "no"),
        *(() if now.lease is None else (("leader", _leader(now.lease)),)),
        *(("problem", problem) for problem in now.problems),
        ("applications", f"{now.applications}{some}"),
        ("models", now.models),
        ("replicas", _counts(now.replicas)),
        ("manager", now.manager),
        *((f"node {node}", _counts(there)) for node, there in sorted(now.nodes.items())),
        *_option_rows(now.options),
        *(() if now.certificate_expires_at is None else (("certificate", f"until {day(now.certificate_expires_at)}"),)),
        *(() if now.client_ca_expires_at is None else (("client CA", f"until {day(now.client_ca_expires_at)}"),)),
        *(
            (f"worker {worker.index}" + (f" on {worker.node}" if worker.node else ""),
             f"{worker.state}, pid {worker.pid}, {worker.restarts} restarts"
             + (f", {worker.last_error}" if worker.last_error else ""))
            for worker in now.workers
        ),
    ]  # fmt: skip


def dashboard(server: Server) -> None:
    """Print a link to the dashboard that logs in, with CLIPPER_TOKEN if it is set. It is a secret, like the token.

    The link is not opened, since other users of the machine could then read it on a command line.
    """
    home, url = find_home(server.home), server.url
    # This call also checks that the server accepts the token.
    own = server.clipper.status().management_url
    source = token_for_home(home, None) if url is None else token_for_url(url, home, None)
    # After the #: browsers do not send this part, so no log of a server or proxy has it.
    link = f"{(url or own).rstrip('/')}{ROOT}#token={quote(source() or '', safe='')}"
    server.out.secret({"url": link}, link, "open it in a browser; everybody with the link has the token")
