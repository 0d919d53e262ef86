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
    """The settings that ``ServerSettings`` does not have, or that have another meaning here.

    Attributes:
        decisions: folder of the decision log, which all workers of a home share; if empty, there is no log.
        tls: whether clients use TLS. The certificate comes with each snapshot, since it may change.
        run: the home's runtime folder. Users' own policies are tried there, with a note while they are imported. If
            empty, they are tried in the system's temporary folder, without a note.
        run_as: the user that trials of policies run as; None is the worker's own user.
        grpc_port: port of the gRPC API, which all workers share; 0 is none.
        logs: folder of its access log and its slow-query log.
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
