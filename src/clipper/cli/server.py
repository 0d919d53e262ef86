"""``clipper start``, ``stop`` and ``status``."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from clipper.cli import orphans
from clipper.cli.options import AsJson, Home, Url
from clipper.cli.output import Output
from clipper.cli.process import ServerStart, become, checked_start, settled, spawn, wait_until_gone
from clipper.cli.settings import Given, options_of, with_settings
from clipper.client import Clipper
from clipper.errors import Conflict, DeadlineExceeded, Unauthorized, Unavailable
from clipper.extras import has_grpc
from clipper.home import find_home, read_token
from clipper.management.schemas import LeaseStatus, Status
from clipper.settings.server import ServerSettings
from clipper.tls.expiry import day

# The server of a home does not answer, or another one has its port.
_NO_ANSWER = (Unavailable, DeadlineExceeded, Unauthorized)
_NEXT = "next: clipper deploy NAME MODEL, clipper app create NAME --model NAME"


@with_settings(settings=options_of(ServerSettings))
def start(
    context: typer.Context,
    home: Home = None,
    *,
    settings: Given,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A file with the server's settings, and the models, applications and keys to apply once it runs.",
            metavar="FILE",
            show_default="none",
            readable=False,
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Run in the foreground, for a service manager.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start the server in the background."""
    out = Output(as_json)
    file = None
    if config is not None:
        # No other command pays for its libraries.
        from clipper.cli.manifest_file import ManifestFile

        file = ManifestFile(config)
        # What the command line or the environment says comes before the file.
        settings |= {name: value for name, value in file.server.items() if _is_default(context, name)}
    server = checked_start(find_home(home), settings)
    now = settled(server.home)
    what = "is running" if now is None else "is running already"
    if now is not None and (other := _other_ports(settings, now)):
        raise Conflict(
            f"Clipper is running already in {server.home}, and not with {other}: queries at {now.query_url}, "
            f"management at {now.management_url}; stop it first (clipper stop), or give another --home"
        )
    if now is None:
        if foreground:
            if file is not None and not file.is_of_server_alone:
                out.warn(f"the server takes only its settings from {config}: clipper apply {config} does the rest")
            become(server)
        with out.progress("starting the server"):
            now = _start(server)
    print_running(out, now, what)
    if file is not None:
        with Clipper.connect(home=server.home, token=read_token(server.home)) as clipper:
            result = file.apply(clipper, out)
        out.line(result.text)
        if not result.is_done:
            raise typer.Exit(1)


def _is_default(context: typer.Context, name: str) -> bool:
    """Whether neither the command line nor the environment gives a parameter."""
    source = context.get_parameter_source(name)
    return source is None or source.name.startswith("DEFAULT")


def _other_ports(settings: Given, now: Status) -> str:
    """The ports that were asked for and are not those of the running server, as options; empty if there are none."""
    usual = ServerSettings()
    urls = {"query_port": now.query_url, "management_port": now.management_url}
    return " and ".join(
        f"--{name.replace('_', '-')} {port}"
        for name, url in urls.items()
        if (port := settings[name]) not in (0, getattr(usual, name), urlsplit(url).port)
    )


def _start(server: ServerStart) -> Status:
    process = spawn(server)
    try:
        return process.wait_until_ready()
    except BaseException:
        # Also on ^C: a half-started server would block the next start.
        process.stop()
        raise


def print_running(out: Output, now: Status, what: str) -> None:
    if now.lease is not None and now.lease.role == "standby" and now.lease.leader is None:
        text = (
            f"Clipper {what} (pid {now.pid}), management at {now.management_url}. It answers no queries: it waits for "
            f"the registry {now.lease.registry}, and leads or stands by as soon as that can be used"
        )
        out.done(now, text, "next: clipper status, clipper logs --server")
        for problem in now.problems:
            out.warn(problem)
        return
    if now.lease is not None and now.lease.role == "standby":
        leader = now.lease.leader
        text = (
            f"Clipper {what} (pid {now.pid}) as a standby, management at {now.management_url}; the leader is {leader}"
        )
        out.done(now, text, "next: clipper status, on this server or on the leader")
        return
    text = (
        f"Clipper {what} (pid {now.pid}): queries at {now.query_url}, gRPC {_grpc(now)}, "
        f"management at {now.management_url}"
    )
    out.done(now, text, _NEXT)
    if not now.ready:
        out.warn(f"some models do not answer: {'; '.join(now.problems)}; see clipper replica list")


def _grpc(now: Status) -> str:
    if now.grpc_address is not None:
        return f"at {now.grpc_address}"
    return "off" if has_grpc() else "off (it needs: pip install 'clipper-serving[grpc]')"


def stop(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Stop the server: queries in flight are answered first."""
    out = Output(as_json)
    try:
        with Clipper.connect(url, home) as clipper, out.progress("draining"):
            pid = clipper.status().pid
            stopping = clipper.stop()
            if url is None:
                wait_until_gone(find_home(home), pid, stopping.drain_delay_s)
    except _NO_ANSWER as error:
        start = ServerStart(find_home(home), {})
        if url is not None:
            raise
        if not orphans.look(start):
            raise orphans.explained(start.home, error) from error
        with out.progress("draining what the supervisor left"):
            orphans.end(start)
    out.done({"stopped": True}, "Clipper has stopped; its models and applications are kept", "next: clipper start")


def status(
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="Show each step that was seen or decided since the server's start, oldest first."
        ),
    ] = False,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the server's processes, addresses and counts, or each step of its latest history."""
    out = Output(as_json)
    try:
        with Clipper.connect(url, home) as clipper:
            if history:
                events = clipper.history()
                times = [datetime.fromtimestamp(event.at).astimezone() for event in events]
                rows = [
                    (at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], event.subject, event.text)
                    for at, event in zip(times, events)
                ]
                out.table(events, ("when", "what", "happened"), rows, "nothing has happened yet")
                return
            now = clipper.status()
    except _NO_ANSWER as error:
        start = ServerStart(find_home(home), {})
        if url is not None:
            raise
        if not (left := orphans.look(start)):
            raise orphans.explained(start.home, error) from error
        out.table({"ready": False, "orphans": left}, ("what", "pid", "where"), orphans.rows(left), "")
        raise Unavailable(orphans.told(start.home, left)) from error
    out.table(now, ("what", "value"), status_rows(now), "")


def _counts(replicas: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(replicas.items())) or "none"


def _leader(lease: LeaseStatus) -> str:
    if lease.leader is None or lease.since is None:
        return f"not known; this server is a standby of {lease.registry}"
    since = datetime.fromtimestamp(lease.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if lease.role == "standby":
        return f"{lease.leader}, since {since}, epoch {lease.epoch}; this server is a standby"
    age = "" if lease.renewed_s_ago is None else f", lease renewed {lease.renewed_s_ago:.1f} s ago"
    standby = "no server stands by" if lease.standby is None else f"standby {lease.standby}"
    return f"this server, since {since}, epoch {lease.epoch}{age}; {standby}"


def status_rows(now: Status) -> list[tuple[str, object]]:
    """The rows of ``clipper status``: what, and its value."""
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
        ("applications", now.applications),
        ("models", now.models),
        ("replicas", _counts(now.replicas)),
        ("manager", now.manager),
        *((f"node {node}", _counts(there)) for node, there in sorted(now.nodes.items())),
        *(() if now.certificate_expires_at is None else (("certificate", f"until {day(now.certificate_expires_at)}"),)),
        *(() if now.client_ca_expires_at is None else (("client CA", f"until {day(now.client_ca_expires_at)}"),)),
        *(
            (f"worker {worker.index}" + (f" on {worker.node}" if worker.node else ""),
             f"{worker.state}, pid {worker.pid}, {worker.restarts} restarts"
             + (f", {worker.last_error}" if worker.last_error else ""))
            for worker in now.workers
        ),
    ]  # fmt: skip
