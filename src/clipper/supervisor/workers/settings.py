"""What query workers are started with, and what is noted of them for the next supervisor."""

import hashlib

import msgspec
from msgspec import Struct

from clipper.control.messages import CHANNEL_VERSION
from clipper.processes.process import ProcessRecord
from clipper.run_as import RunAs
from clipper.settings.server import DEFAULT_LOG_BYTES, FEEDBACK_QUERIES, MAX_BODY_BYTES, MAX_CONTEXTS
from clipper.tls.material import TlsMode


class WorkerSettings(Struct, frozen=True):
    """What all workers of a server have in common; one that runs with others is replaced: at once, or as in an upgrade
    where it can stand beside the new ones meanwhile.

    ``store_digest`` tells whether the selection store is the same: its address may hold a password, and this is kept in
    a file for the next supervisor. ``max_contexts`` is of each application in it. ``knows_keys`` is False of one that a
    Clipper from before there were keys has started, which would answer whoever asks. ``decisions`` is the decision
    log's folder. ``run`` and ``grpc_port``: see ``WorkerConfig``.
    """

    host: str
    port: int
    cache_bytes: int
    store_digest: str
    max_contexts: int = MAX_CONTEXTS
    max_body_bytes: int = MAX_BODY_BYTES
    feedback_queries: int = FEEDBACK_QUERIES
    decisions: str = ""
    decision_log_bytes: int = DEFAULT_LOG_BYTES
    knows_keys: bool = False
    tls: TlsMode = "off"
    run: str = ""
    run_as: RunAs | None = None
    grpc_port: int = 0

    def can_stand_beside(self, other: "WorkerSettings") -> bool:
        """Whether workers of both may answer on one port, until those of one are replaced."""
        return (self.host, self.port, self.tls, self.store_digest, self.knows_keys) == (
            other.host,
            other.port,
            other.tls,
            other.store_digest,
            other.knows_keys,
        )


def store_digest(address: str) -> str:
    """Costs some 30 ms, so that nobody finds a weak password by it."""
    return hashlib.scrypt(address.encode(), salt=b"clipper selection store", n=2**13, r=8, p=1, dklen=16).hex()


class WorkerNote(Struct, frozen=True):
    """What a worker's process record says besides: enough to go on with it.

    ``build`` is ``build_id()`` of the Clipper that it was started with; empty of one from before that was noted.
    ``channel`` is its version of the control channel. ``knows_ramps`` is False of one from before there were ramps.
    """

    index: int
    instance: int
    control: str
    settings: WorkerSettings
    build: str = ""
    channel: int = 1
    knows_ramps: bool = False

    def goes_on(self, settings: WorkerSettings, workers: int) -> bool:
        """Whether another supervisor goes on with it: in a place of its own, or as a spare if it is one too many."""
        return self.settings.can_stand_beside(settings) and self.index <= workers

    def is_outdated(self, settings: WorkerSettings, build: str) -> bool:
        """Whether it is to be replaced then, since it runs other code or with other settings."""
        return self.build != build or self.settings != settings


def worker_note(record: ProcessRecord) -> WorkerNote | None:
    """What a record says of a worker; None if it is not a worker's, or its control channel is not ours or adjacent."""
    try:
        note = msgspec.convert(record.extra, WorkerNote)
    except msgspec.ValidationError:
        return None
    return note if abs(note.channel - CHANNEL_VERSION) <= 1 else None
