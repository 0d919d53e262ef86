"""What a query worker is told when it starts; the supervisor writes it, as JSON, on the command line."""

from msgspec import Struct

from clipper.frontend.limits import MAX_BODY_BYTES
from clipper.run_as import RunAs
from clipper.settings.server import DEFAULT_LOG_BYTES, FEEDBACK_QUERIES, MAX_CONTEXTS
from clipper.tls.material import TlsMode


class WorkerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Attributes:
        index: 0 to the number of workers - 1; kept over restarts.
        instance: differs for every start of any worker of this home, below 2^20: the upper part of its query ids.
        control: path of the unix socket that the worker listens on for the supervisor.
        cache_bytes: the prediction cache's bound.
        store: where learned state is kept: ``sqlite:PATH`` or ``redis://…``; if empty, what ``CLIPPER_STORE`` says.
        max_contexts: how many contexts the store keeps of each application.
        feedback_queries: how many queries are kept for feedback.
        max_body_bytes: of a request on the query port, where the type of the application's inputs needs no more.
        decisions: the folder of the decision log, which all workers of a home share; if empty, there is none.
        decision_log_bytes: of all its files together.
        run: the home's folder of what runs: policies of users' own are tried there, and noted while they are imported;
            if empty, the former is done in the system's temporary folder, and the latter not.
        run_as: the user that policies are tried as; None is the worker's own.
        grpc_port: shared as ``port`` is; 0 is none.
        tls: how clients are met; the pair for it comes with each snapshot, since it may change.
        settle_timeout_s: how long ``Applied`` may wait for replicas to be dialled and drained.
        drain_timeout_s: how long a stop may wait for answers under way.
    """

    index: int
    instance: int
    host: str
    port: int
    control: str
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
    tls: TlsMode = "off"
    settle_timeout_s: float = 5.0
    drain_timeout_s: float = 10.0
