"""A query worker's settings; the supervisor passes them on the command line, as JSON."""

from msgspec import Struct

from clipper.frontend.limits import MAX_BODY_BYTES
from clipper.run_as import RunAs
from clipper.settings.server import DEFAULT_LOG_BYTES, FEEDBACK_QUERIES, MAX_CONTEXTS, ReadyWhen
from clipper.settings.telemetry import TelemetrySettings
from clipper.tls.material import TlsMode


class WorkerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Attributes:
        index: 0 to the number of workers - 1; stays the same over restarts.
        instance: a number below 2^20 that is new for each start of any worker of the home: the upper part of query ids.
        host, port: address of the query port.
        control: where the worker listens for the supervisor and for other workers: see ``parse_address``.
        identity: over TCP, the file of what it shows there (``control.identity``). It is replaced before it expires.
        node: the address of its node, whose replicas it prefers; empty if there is only one.
        store: where learned state is kept: ``sqlite:PATH`` or ``redis://…``; if empty, ``CLIPPER_STORE`` says it.
        cache_bytes: bound of the prediction cache.
        max_contexts: number of contexts that the store keeps for each application.
        feedback_queries: number of queries that are kept for feedback.
        max_body_bytes: bound of a request on the query port, unless an application's input type needs more.
        decisions: folder of the decision log, which all workers of a home share; if empty, there is no log.
        decision_log_bytes: bound of all its files together.
        run: the home's runtime folder. Users' own policies are tried there, and noted while they are imported. If
            empty, they are tried in the system's temporary folder and not noted.
        run_as: the user that tries of policies run as; None is the worker's own user.
        artifacts: the folder below which the code of users' own policies is. If empty, snapshots have whole paths.
        grpc_port: port of the gRPC API, which all workers share; 0 is none.
        ready_when: which applications have to be able to answer before the worker calls itself ready.
        allowed_origins: origins of web pages that may read answers; see ``Origins``.
        tls: whether clients use TLS. The certificate comes with each snapshot, since it may change.
        telemetry: how it logs, and which spans it sends where.
        logs: folder of its access log and its slow-query log.
        kept: the file in which it keeps what it serves by (``worker.kept``); if empty, it keeps nothing.
        restart: how many times this instance was started before, on a node where no supervisor led.
        settle_timeout_s: how long ``Applied`` may wait for replicas to be dialled and drained.
        drain_timeout_s: how long a stop may wait for requests in progress.
    """

    index: int
    instance: int
    host: str
    port: int
    control: str
    identity: str = ""
    node: str = ""
    store: str = ""
    cache_bytes: int = 64 * 1024 * 1024
    max_contexts: int = MAX_CONTEXTS
    feedback_queries: int = FEEDBACK_QUERIES
    max_body_bytes: int = MAX_BODY_BYTES
    decisions: str = ""
    decision_log_bytes: int = DEFAULT_LOG_BYTES
    run: str = ""
    run_as: RunAs | None = None
    grpc_port: int = 0
    allowed_origins: tuple[str, ...] = ()
    ready_when: ReadyWhen = "any"
    tls: TlsMode = "off"
    telemetry: TelemetrySettings = TelemetrySettings()
    logs: str = ""
    artifacts: str = ""
    kept: str = ""
    restart: int = 0
    settle_timeout_s: float = 5.0
    drain_timeout_s: float = 10.0
