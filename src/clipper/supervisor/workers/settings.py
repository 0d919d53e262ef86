"""The settings with which query workers are started, and the notes on them for the next supervisor."""

import hashlib
from typing import Protocol

import msgspec
from msgspec import Struct

from clipper.base.processes.process import ProcessRecord
from clipper.control.address import ControlAddress, parse_address
from clipper.control.identity import Secured
from clipper.control.messages import CHANNEL_VERSION
from clipper.control.shared_settings import SharedSettings
from clipper.errors import InvalidArgument

# How many numbers of workers' starts fit into query ids; numbers repeat after a million starts.
INSTANCES = 2**20


class Credentials(Protocol):
    def secured(self, epoch: int, instance: int) -> Secured:
        """Make the identity by which the supervisor of this epoch dials the worker of this instance."""


class WorkerSettings(SharedSettings, frozen=True, kw_only=True):
    """The settings that all workers of a server share.

    A worker with other settings is replaced: at once or, if it can stand beside new workers, one after another as in an
    upgrade. ``store_digest`` shows whether the selection store is the same, whose address may hold a password.
    ``knows_keys`` is False if a Clipper from before there were keys started the worker, which then answers anyone.
    """

    store_digest: str
    knows_keys: bool = False

    def can_stand_beside(self, other: "WorkerSettings") -> bool:
        """Whether workers with both settings may answer on the same port, until the old workers are replaced."""
        return (self.host, self.port, self.tls, self.store_digest, self.knows_keys) == (
            other.host,
            other.port,
            other.tls,
            other.store_digest,
            other.knows_keys,
        )


def store_digest(address: str) -> str:
    """Return a digest of a store's address. It takes some 30 ms, so that a weak password cannot be found by trying."""
    return hashlib.scrypt(address.encode(), salt=b"clipper selection store", n=2**13, r=8, p=1, dklen=16).hex()


class WorkerNote(Struct, frozen=True):
    """A note in a worker's process record, for another supervisor.

    Attributes:
        control: where its control channel listens, as ``ControlAddress.wire``.
        build: the build of the Clipper that started it; empty if that Clipper did not note it yet.
        channel: its version of the control channel.
        knows_records: False if it was started before inputs could be records, and applications pipelines.
    """

    index: int
    instance: int
    control: str
    settings: WorkerSettings
    build: str = ""
    channel: int = CHANNEL_VERSION
    node: str = ""
    knows_records: bool = False

    @property
    def address(self) -> ControlAddress:
        """Return its control channel's address. Raises InvalidArgument if this version does not know its form."""
        return parse_address(self.control)

    def goes_on(self, settings: WorkerSettings, workers: int) -> bool:
        """Whether another supervisor goes on with the worker: in its place, always on a node, or as the spare."""
        return self.settings.can_stand_beside(settings) and (bool(self.node) or self.index <= workers)

    def is_outdated(self, settings: WorkerSettings, build: str) -> bool:
        """Whether the worker has to be replaced, because it runs other code or with other settings."""
        return self.build != build or self.settings != settings


def worker_note(record: ProcessRecord) -> WorkerNote | None:
    """Return a worker's note in its process record; None if there is none, or its control channel is too old or new."""
    try:
        note = msgspec.convert(record.extra, WorkerNote)
        _ = note.address
    except (msgspec.ValidationError, InvalidArgument):
        return None
    return note if abs(note.channel - CHANNEL_VERSION) <= 1 else None
