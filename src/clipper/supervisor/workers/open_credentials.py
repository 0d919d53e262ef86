"""What the control channel needs over TCP: a supervisor's certificate, and an authority that signs for workers."""

from datetime import UTC, datetime
from pathlib import Path

from clipper.control.identity import PeerName
from clipper.managers.worker_host import Sign
from clipper.registry.shared import SharedRegistry
from clipper.supervisor.workers.settings import Credentials


def open_credentials(path: Path, registry: SharedRegistry | None, epoch: int) -> tuple[Credentials, Sign]:
    """The supervisor's credentials, and what signs for the workers that it starts.

    Args:
        path: of the authority's key, if the home is this server's alone.
        registry: which several servers share, and which then has the key; None if the home has it.
        epoch: of the lease in that registry.

    Raises:
        Unavailable, NotLeader, RegistryUnavailable: the key cannot be read or made.
    """
    # Its library is an extra.
    from clipper.supervisor.workers.credentials import SupervisorCredentials, home_authority, shared_authority

    authority = home_authority(path) if registry is None else shared_authority(registry)

    def sign(request: bytes, instance: int) -> tuple[bytes, bytes]:
        return authority.sign(request, PeerName("worker", instance), datetime.now(UTC)), authority.certificate

    return SupervisorCredentials(authority, None if registry is None else epoch), sign
