"""The port to a registry that several supervisors share, of which one leads at a time."""

import time
from dataclasses import dataclass
from typing import Protocol

from clipper.supervisor.registry.lease import Lease
from clipper.supervisor.registry.store import Registry


def clock_s() -> float:
    """Return the seconds of a clock that never goes back, and that also counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# The file of a home with the address and the id of the registry that its server knew last.
REGISTRY_ID_NAME = "registry.id"
# The bound on artifacts, which are in the storage's memory and in its append-only file.
MAX_ARTIFACT_BYTES = 1024 * 1024 * 1024
MAX_ARTIFACTS_BYTES = 4 * 1024 * 1024 * 1024
# The largest piece that is sent at once. Between pieces the storage answers other clients.
PIECE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """The server that asks for the lease.

    ``id`` is its home's, whose lock keeps a second process from having the same. ``address`` is that of its management
    port, for people and for ``clipper status``.
    """

    id: str
    address: str


# The counter of epochs, among those of ``Registry.reserve``.
EPOCHS = "supervisor"


@dataclass(frozen=True, slots=True)
class Leader:
    """The supervisor that has the lease.

    ``since`` is when it got the lease, in seconds since 1970 by the storage's clock. ``is_ready``: whether it said that
    it answers queries.
    """

    epoch: int
    address: str
    since: float
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Renewed:
    """A confirmed renewal. ``standby`` is the address of a server that has asked for the lease lately; None if none."""

    standby: str | None


@dataclass(frozen=True, slots=True)
class Away:
    """The storage does not answer."""

    why: str


class SharedRegistry(Registry, Protocol):
    """A registry under a lease. Only the holder of the latest epoch makes changes: see ``lease``.

    ``write`` and ``reserve`` raise ``NotLeader`` once another supervisor has led since, and ``RegistryUnavailable``
    while the storage does not answer.

    Attributes:
        shown_address: the storage's address without a password.
        id: a random name of the registry, the same for all supervisors; empty before the lease was granted.
        doubt: why it is not known whether all changes were stored; None if it is known.
    """

    shown_address: str
    id: str
    lease: Lease | None
    doubt: str | None

    def acquire(self, takes: bool = True) -> Lease | Leader | Away:
        """Ask for the lease; return it, or its holder. It begins a new epoch, also for its holder.

        Without ``takes``, only return the present or last holder. Raises RegistryUnavailable if this Clipper cannot use
        the storage in its state.
        """

    def renew(self, is_ready: bool) -> Renewed | Leader | Away:
        """Ask for a renewal, and say whether this supervisor answers queries; return the leader if it is another.

        It may run on a thread beside the other methods. It does not change ``lease``.
        """

    def release(self) -> None:
        """Give the lease back, so that another supervisor need not wait for its end. Raises RegistryUnavailable."""

    def secret(self, name: str, made: bytes) -> bytes:
        """Return a secret; store ``made``, ASCII and not encrypted, if there is none. Raises as ``write``."""

    def artifact_sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of the stored artifacts, by digest. Raises RegistryUnavailable."""

    def admit_artifact(self, size_bytes: int) -> None:
        """Raise TooLarge if there is no room for an artifact of this size, and RegistryUnavailable."""

    def put_piece(self, digest: str, number: int, piece: bytes) -> None:
        """Store a piece for an hour, or until ``complete_artifact``. Raises RegistryUnavailable."""

    def complete_artifact(self, digest: str, size_bytes: int) -> None:
        """Keep all pieces, as a change. Raises the same errors as ``write``; also if a piece is missing."""

    def get_piece(self, digest: str, number: int) -> bytes:
        """Return a piece of an artifact. Raises RegistryUnavailable, also if it is missing."""

    def remove_artifact(self, digest: str) -> None:
        """Remove an artifact. Raises the same errors as ``write``."""
