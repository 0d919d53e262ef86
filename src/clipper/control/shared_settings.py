"""The settings that all workers of a server share, as the supervisor gives them and a worker reads them."""

from msgspec import Struct

from clipper.base.run_as import RunAs
from clipper.base.tls.material import TlsMode
from clipper.settings.server import (
    DEFAULT_LOG_BYTES,
    FEEDBACK_QUERIES,
    MAX_BODY_BYTES,
    MAX_CONTEXTS,
    MAX_OUTPUT_BYTES,
    ReadyWhen,
    TelemetrySettings,
)


class SharedSettings(Struct, frozen=True):
    """
    Attributes:
        max_contexts: number of contexts that the store keeps for each application.
        max_body_bytes: bound of a request on the query port, unless an application's input type needs more.
        decisions: folder of the decision log, which all workers of a home share; if empty, there is no log.
        decision_log_bytes: bound on the sum of its files.
        tls: whether clients use TLS. The certificate comes with each snapshot, since it may change.
        run: the home's runtime folder. Users' own policies are tried there, and noted while they are imported. If
            empty, they are tried in the system's temporary folder and not noted.
        run_as: the user that trials of policies run as; None is the worker's own user.
        grpc_port: port of the gRPC API, which all workers share; 0 is none.
        allowed_origins: origins of web pages that may read answers; see ``Origins``.
        telemetry: settings of logs and spans.
        logs: folder of its access log and its slow-query log.
        remember_in_store: whether answered queries are written to the store, for other servers.
        max_output_bytes: bound of one output of a model, as its container sends it.
        ready_when: which applications have to be able to answer before the worker calls itself ready.
    """

    host: str
    port: int
    cache_bytes: int = 64 * 1024 * 1024
    max_contexts: int = MAX_CONTEXTS
    max_body_bytes: int = MAX_BODY_BYTES
    feedback_queries: int = FEEDBACK_QUERIES
    decisions: str = ""
    decision_log_bytes: int = DEFAULT_LOG_BYTES
    tls: TlsMode = "off"
    run: str = ""
    run_as: RunAs | None = None
    grpc_port: int = 0
    allowed_origins: tuple[str, ...] = ()
    telemetry: TelemetrySettings = TelemetrySettings()
    logs: str = ""
    ready_when: ReadyWhen = "any"
    max_output_bytes: int = MAX_OUTPUT_BYTES
    remember_in_store: bool = False
