"""The credentials of the control channel over TCP: a supervisor's certificate, and an authority that signs for workers.

It needs ``cryptography``, which the extra ``ray`` brings.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clipper.base.tls.mutual import Contexts, make_contexts
from clipper.base.whole_files import write_whole
from clipper.control.authority import Authority, make_authority
from clipper.control.identity import PeerName, Secured
from clipper.errors import InvalidArgument, Unavailable
from clipper.supervisor.managers.worker_host import Sign
from clipper.supervisor.registry.shared import SharedRegistry

# The supervisor has the authority's key, so a new certificate costs it less than a millisecond.
_RENEW_AFTER = timedelta(days=1)
# The name of the authority's key among the secrets of a shared registry.
SECRET_NAME = "control-authority"


def _now() -> datetime:
    return datetime.now(UTC)


class SupervisorCredentials:
    """A supervisor's credentials. ``authority`` signs for workers, too."""

    def __init__(self, authority: Authority, last_epoch: int | None = None, now: Callable[[], datetime] = _now) -> None:
        """Make credentials. ``last_epoch`` is the lease's epoch, the last that may be used; None without a lease."""
        self.authority = authority
        self._last_epoch = last_epoch
        self._now = now
        self._made: tuple[int, datetime, Contexts] | None = None

    def secured(self, epoch: int, instance: int) -> Secured:
        """Return how the supervisor of this epoch dials a worker.

        There is no certificate for a later epoch than the lease's: workers go on to answer a supervisor with the
        lease's epoch, and refuse commands for the later one.
        """
        if self._last_epoch is not None:
            epoch = min(epoch, self._last_epoch)
        now = self._now()
        if self._made is None or self._made[0] != epoch or now - self._made[1] > _RENEW_AFTER:
            material = self.authority.issue(PeerName("supervisor", epoch), now)
            self._made = epoch, now, make_contexts(material)
        return Secured(self._made[2].dialling, PeerName("worker", instance))


def open_credentials(path: Path, registry: SharedRegistry | None, epoch: int) -> tuple[SupervisorCredentials, Sign]:
    """Return the supervisor's credentials, whose authority signs for the workers that it starts.

    The authority's key is in the registry that servers share, or in the file ``path``. Raises Unavailable, NotLeader or
    RegistryUnavailable if it cannot be read or made.
    """
    authority = home_authority(path) if registry is None else shared_authority(registry)

    def sign(request: bytes, instance: int) -> tuple[bytes, bytes]:
        return authority.sign(request, PeerName("worker", instance), _now()), authority.certificate

    return SupervisorCredentials(authority, None if registry is None else epoch), sign


def home_authority(path: Path) -> Authority:
    """Return the authority of a home, which is made on first use. Raises Unavailable."""
    try:
        if not path.exists():
            write_whole(path, [make_authority(_now())], is_synced=True)
        return Authority(path.read_bytes())
    except (OSError, InvalidArgument) as error:
        raise Unavailable(
            f"{path}, the key of the workers' control channel, cannot be used: {error}; remove it, and a new one is "
            "made"
        ) from error


def shared_authority(registry: SharedRegistry) -> Authority:
    """Return the authority of all servers that share a registry. Raises the same errors as ``SharedRegistry.write``."""
    return Authority(registry.secret(SECRET_NAME, make_authority(_now())))
