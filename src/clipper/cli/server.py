"""``clipper start``, ``stop`` and ``status``."""

from datetime import datetime
from typing import Annotated

import typer

from clipper.cli.options import (
    DEFAULT_CACHE,
    DEFAULT_MAX_BODY,
    AllowedHost,
    ApiKeys,
    AsJson,
    CacheSize,
    DecisionLogSize,
    DockerBaseImage,
    DockerNetwork,
    DockerTransport,
    FeedbackQueries,
    Home,
    Host,
    Insecure,
    KeepVersions,
    ManagementHost,
    ManagementPort,
    MaxBodySize,
    MaxContexts,
    OpenMetrics,
    QueryPort,
    RunAsUser,
    StoreAddress,
    TlsCert,
    TlsClientCa,
    TlsKey,
    Url,
    Workers,
    check_tls,
)
from clipper.cli.output import Output
from clipper.cli.process import ServerSettings, become, running, spawn, wait_until_gone
from clipper.client import Clipper
from clipper.home import find_home
from clipper.hosts import is_loopback
from clipper.management.schemas import Status
from clipper.tls.expiry import day

_NEXT = "next: clipper deploy NAME MODEL, clipper app create NAME --model NAME"


def start(
    home: Home = None,
    host: Host = "127.0.0.1",
    management_host: ManagementHost = "127.0.0.1",
    allowed_host: AllowedHost = None,
    insecure: Insecure = False,
    open_metrics: OpenMetrics = False,
    api_keys: ApiKeys = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    query_port: QueryPort = 1337,
    management_port: ManagementPort = 1338,
    workers: Workers = 1,
    cache_size: CacheSize = DEFAULT_CACHE,  # type: ignore[assignment]  # typer parses the default too
    max_body_size: MaxBodySize = DEFAULT_MAX_BODY,  # type: ignore[assignment]  # as above
    store: StoreAddress = None,
    max_contexts: MaxContexts = None,
    feedback_queries: FeedbackQueries = None,
    keep_versions: KeepVersions = None,
    decision_log_size: DecisionLogSize = None,
    run_as: RunAsUser = None,
    docker_base_image: DockerBaseImage = None,
    docker_network: DockerNetwork = None,
    docker_transport: DockerTransport = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in front, for a service manager.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the server, and leave it running."""
    out = Output(as_json)
    tls = check_tls(tls_cert, tls_key, tls_client_ca)
    if not (insecure or tls or is_loopback(management_host)):
        raise typer.BadParameter(
            "it can be reached from other machines, and what goes there, tokens among it, can be read on the way: "
            "give --tls-cert and --tls-key, put a proxy with TLS before 127.0.0.1, or say --insecure",
            param_hint="--management-host",
        )
    settings = ServerSettings(
        home=find_home(home),
        host=host,
        query_port=query_port,
        management_port=management_port,
        workers=workers,
        cache_bytes=cache_size,
        store=store,
        max_contexts=max_contexts,
        keep_versions=keep_versions,
        docker_base_image=docker_base_image,
        docker_network=docker_network,
        docker_transport=docker_transport,
        management_host=management_host,
        allowed_hosts=tuple(allowed_host or ()),
        insecure=insecure,
        open_metrics=open_metrics,
        max_body_bytes=max_body_size,
        feedback_queries=feedback_queries,
        api_keys=api_keys,
        decision_log_bytes=decision_log_size,
        tls=tls,
        run_as=run_as,
    )
    if found := running(settings.home):
        _tell_running(out, found, "is running already")
        return
    if foreground:
        become(settings)
    with out.progress("starting the server"):
        now = _start(settings)
    _tell_running(out, now, "is running")


def _start(settings: ServerSettings) -> Status:
    server = spawn(settings)
    try:
        return server.wait_until_ready()
    except BaseException:
        # Also at ^C: a server that is half there would be in the way of the next start.
        server.stop()
        raise


def _tell_running(out: Output, now: Status, what: str) -> None:
    text = f"Clipper {what} (pid {now.pid}): queries at {now.query_url}, management at {now.management_url}"
    out.done(now, text, _NEXT)
    if not now.ready:
        out.warn(f"not all models answer: {'; '.join(now.problems)}; see clipper replica list")


def stop(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Stop the server: queries in flight are answered first."""
    out = Output(as_json)
    with Clipper.connect(url, home) as clipper, out.progress("draining"):
        pid = clipper.status().pid
        clipper.stop()
        if url is None:
            wait_until_gone(find_home(home), pid)
    out.done({"stopped": True}, "Clipper has stopped; its models and applications are kept", "next: clipper start")


def status(
    history: Annotated[
        bool, typer.Option("--history", help="What happened and was decided since its start, oldest first.")
    ] = False,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the server's processes, addresses and counts, or the story of its last events."""
    out = Output(as_json)
    with Clipper.connect(url, home) as clipper:
        if history:
            events = clipper.history()
            rows = [(_clock(event.at), event.subject, event.text) for event in events]
            out.table(events, ("when", "what", "happened"), rows, "nothing has happened yet")
            return
        now = clipper.status()
    out.table(now, ("what", "value"), _status_rows(now), "")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _status_rows(now: Status) -> list[tuple[str, object]]:
    replicas = ", ".join(f"{count} {state}" for state, count in sorted(now.replicas.items())) or "none"
    return [
        ("version", now.version),
        ("pid", now.pid),
        ("home", now.home),
        ("queries", now.query_url),
        ("management", now.management_url),
        ("up", f"{now.uptime_s:.0f} s"),
        ("ready", ": ".join(["yes" if now.ready else "no", *filter(None, ["; ".join(now.problems)])])),
        ("applications", now.applications),
        ("models", now.models),
        ("replicas", replicas),
        *(() if now.certificate_expires_at is None else (("certificate", f"until {day(now.certificate_expires_at)}"),)),
        *(() if now.client_ca_expires_at is None else (("client CA", f"until {day(now.client_ca_expires_at)}"),)),
        *(
            (f"worker {worker.index}", f"{worker.state}, pid {worker.pid}, {worker.restarts} restarts"
             + (f", {worker.last_error}" if worker.last_error else ""))
            for worker in now.workers
        ),
    ]  # fmt: skip
