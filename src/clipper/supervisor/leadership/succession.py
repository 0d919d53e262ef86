"""Brings a server of a cluster to lead: requests the lease, stands by until it is granted, and then takes over.

A standby answers no queries. Workers that it left running when another server took over go on until the new leader is
ready. Then they are drained, because nobody informs them of changes any more, such as revoked keys.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper import __version__
from clipper.api.schemas import LeaseStatus, Logs, OptionStatus, Status, Stopping
from clipper.api.server.access import Holder
from clipper.errors import NotLeader, RegistryUnavailable
from clipper.settings.home import Place
from clipper.supervisor.artifacts.shared import fetch_missing
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders, facilities_of
from clipper.supervisor.keepers.certificates import LOOK_EVERY_S, Certificates
from clipper.supervisor.keepers.keepers import Keepers
from clipper.supervisor.management_port import ManagementPort
from clipper.supervisor.managers.open import open_launchers
from clipper.supervisor.metrics.ledger import Ledger, Shown
from clipper.supervisor.operations.models import logs_of
from clipper.supervisor.operations.tokens import TokenFile
from clipper.supervisor.operations.views import options_view
from clipper.supervisor.registry.leadership import Leadership
from clipper.supervisor.registry.lease import Lease
from clipper.supervisor.registry.shared import Away, Leader, SharedRegistry, clock_s
from clipper.supervisor.stop_requests import StopRequests
from clipper.supervisor.workers import ports, takeover
from clipper.values.types import OPERATOR

log = logging.getLogger(__name__)

# The interval between requests for the lease. Together with the lease's duration, it is most of a takeover's time.
ASK_EVERY_S = 0.5
# The interval between looks for artifacts that the leader has stored. A takeover fetches files that are still missing.
FETCH_EVERY_S = 5.0
# After Redis was away, a standby waits for this long, so that the leader can renew the lease: a takeover would only
# restart everything.
PATIENCE_S = 5.0
# Old workers run for at most this long while the new leader is not ready, for example because a model cannot run on its
# machine.
LEFT_FOR_S = 300.0


@dataclass(eq=False)
class Standby:
    """Waits for the lease. ``outcome`` is the latest answer. ``_end_orphans`` drains and ends what this home left."""

    _registry: SharedRegistry
    _artifacts: Artifacts
    _end_orphans: Callable[[], Awaitable[None]]
    _stopping: StopRequests

    def __post_init__(self) -> None:
        self._patient_until_s = float("-inf")
        self.outcome: Lease | Leader | Away | RegistryUnavailable = Away("the registry was not asked yet")

    async def ask(self) -> Lease | None:
        """Ask for the lease once. Raises RegistryUnavailable like ``SharedRegistry.acquire``."""
        self.outcome = await asyncio.to_thread(self._registry.acquire, clock_s() >= self._patient_until_s)
        if isinstance(self.outcome, Away):
            self._patient_until_s = float("inf")
        elif self._patient_until_s == float("inf"):
            self._patient_until_s = clock_s() + PATIENCE_S
        return self.outcome if isinstance(self.outcome, Lease) else None

    async def wait(self) -> Lease | None:
        """Wait for the lease; None if the server was told to stop."""
        fetching = asyncio.get_running_loop().create_task(self._keep_fetching())
        has_left, led_since_s = True, clock_s()
        try:
            while not self._stopping.is_requested:
                try:
                    if (lease := await self.ask()) is not None:
                        return lease
                except RegistryUnavailable as error:
                    if str(self.outcome) != str(error):
                        log.error("%(error)s", {"error": error})
                    self.outcome = error
                reap_children()
                if isinstance(self.outcome, Leader):
                    is_over = self.outcome.is_ready or clock_s() - led_since_s > LEFT_FOR_S
                    if has_left and is_over:
                        has_left = False
                        await self._end_orphans()
                else:
                    led_since_s = clock_s()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.requested(), ASK_EVERY_S)
            return None
        finally:
            fetching.cancel()
            await asyncio.wait([fetching])

    async def _keep_fetching(self) -> None:
        while True:
            await fetch_missing(self._registry, self._artifacts)
            await asyncio.sleep(FETCH_EVERY_S)


@dataclass(eq=False)
class StandbyOperations:
    """The answers of a standby's management API; see ``api.server.operations.Operations``.

    Calls are refused and not passed on: the caller learns where to call, and gets no answer from a server that may no
    longer lead.
    """

    _standby: Standby
    _registry: SharedRegistry
    _home: Path
    _place: Place
    _stopping: StopRequests
    _options: dict[str, OptionStatus]

    def __post_init__(self) -> None:
        self._started_s = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        """Refuse every other method."""
        if name.startswith("_"):
            raise AttributeError(name)

        async def refuse(*_arguments: object, **_named: object) -> None:
            raise NotLeader(who_leads(self._standby))

        return refuse

    async def status(self) -> Status:
        leader = self._standby.outcome if isinstance(self._standby.outcome, Leader) else None
        return Status(
            version=__version__,
            pid=os.getpid(),
            home=str(self._home),
            query_url=self._place.query_url,
            management_url=self._place.management_url,
            uptime_s=time.monotonic() - self._started_s,
            ready=False,
            problems=(who_leads(self._standby),),
            workers=(),
            applications=0,
            models=0,
            replicas={},
            stopping=self._stopping.is_requested,
            lease=LeaseStatus(
                role="standby",
                registry=self._registry.shown_address,
                epoch=leader.epoch if leader is not None else None,
                leader=leader.address if leader is not None else None,
                since=leader.since if leader is not None else None,
            ),
            options=self._options,
        )

    async def metrics(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        """Return the standby's own state for every scrape: it has no workers, applications or models."""
        return Ledger().text(Shown(status=await self.status()), {})

    async def why_not_ready(self) -> list[str]:
        return [who_leads(self._standby)]

    async def server_logs(self, name: str | None, lines: int, after: dict[str, str]) -> Logs:
        return logs_of({"supervisor": self._home / "logs" / "supervisor.log"}, after, lines)

    async def stop(self) -> Stopping:
        self._stopping.request()
        return Stopping()


def who_leads(standby: Standby) -> str:
    """Return why a standby answers neither queries nor operators, and which server does."""
    match standby.outcome:
        case Leader(epoch=epoch, address=address):
            return f"this server is a standby: the server at {address} leads, with epoch {epoch}; ask there"
        case Away(why=why):
            return f"this server is a standby, and does not know which server leads: {why}"
        case RegistryUnavailable() as error:
            return f"this server is a standby, and cannot lead: {error}"
    return "this server is taking over: ask again in a moment"


def reap_children() -> None:
    """Reap children that have ended: a supervisor that stepped down keeps its children, but does not watch them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@dataclass(eq=False)
class Succession:
    """Takes a server from its start until it leads."""

    _config: Config
    _home: HomeFolders
    _port: ManagementPort
    _certificates: Certificates | None
    _token_file: TokenFile
    _stopping: StopRequests

    async def lead(self, registry: SharedRegistry) -> Leadership | None:
        """Wait until this server leads, with all files; None if it is to stop first. Raises RegistryUnavailable."""
        # A supervisor that stepped down in this process has left children, some of which may have ended.
        reap_children()
        artifacts = Artifacts(self._home.artifacts)
        standby = Standby(registry, artifacts, self._end_orphans, self._stopping)
        if (lease := await standby.ask()) is not None:
            leadership = Leadership(registry, lease, self._port.address, time.time())
        else:
            try:
                async with self._standing_by(standby, registry):
                    if (lease := await standby.wait()) is None:
                        return None
                    # From now on the lease is renewed, even while earlier calls are still being answered.
                    leadership = Leadership(registry, lease, self._port.address, time.time())
            finally:
                # A server that leads again keeps its address, and its callers wait until it answers.
                if lease is None:
                    self._home.place.unlink(missing_ok=True)
        log.info("this server leads, with epoch %(epoch)d", {"epoch": lease.epoch})
        await fetch_missing(registry, artifacts)
        return leadership

    @contextlib.asynccontextmanager
    async def _standing_by(self, standby: Standby, registry: SharedRegistry) -> AsyncIterator[None]:
        """Answer on the management port as a standby."""
        query_url = ports.url(self._config.host, self._config.query_port, self._config.tls is not None)
        place = Place(os.getpid(), self._port.url, query_url, time.time(), started_by=self._config.options.started_by)
        operations: Any = StandbyOperations(
            standby, registry, self._home.root, place, self._stopping, options_view(self._config.options)
        )
        api, serving = await self._port.serve(operations, self._holder_of)
        keepers = Keepers()
        if self._certificates is not None:
            keepers.repeat("looking for new certificates", self._certificates.look, LOOK_EVERY_S)
        self._home.write_place(place, self._config.options)
        log.info("%(reason)s", {"reason": who_leads(standby)})
        try:
            yield
        finally:
            api.should_exit = True
            await serving
            await keepers.stop()

    def _holder_of(self, token: str | None) -> Holder | None:
        """Return the holder of the home's own token. Other tokens are in the registry, which only the leader reads."""
        return Holder(OPERATOR, "admin") if token is not None and self._token_file.matches(token) else None

    async def _end_orphans(self) -> None:
        facilities = facilities_of(self._config, self._home)
        launchers = open_launchers(facilities, "here").values()
        await takeover.end_all_orphans(facilities.processes, self._home, launchers)
