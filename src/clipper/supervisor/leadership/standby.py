"""A supervisor that waits for the lease: it answers who leads, gets models' files, and takes over.

A standby answers no queries. What it left running when another took over goes on until the new leader is ready: its
workers are drained then, because nobody tells them of changes any more, such as of keys that are revoked.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from clipper import __version__
from clipper.api.schemas import LeaseStatus, Logs, OptionStatus, Status, Stopping
from clipper.errors import NotLeader, RegistryUnavailable
from clipper.settings.home import Place
from clipper.supervisor.artifacts.shared import fetch_missing
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.metrics.exposition import Scrape, render
from clipper.supervisor.operations.models import logs_of
from clipper.supervisor.registry.clock import clock_s
from clipper.supervisor.registry.lease.lease import Lease
from clipper.supervisor.registry.shared import Away, Leader, SharedRegistry
from clipper.supervisor.stop_requests import StopRequests

log = logging.getLogger(__name__)

# How often the lease is asked for. With the lease's duration this is most of what a takeover takes.
ASK_EVERY_S = 0.5
# How often to look for models' files that the leader has stored. A takeover fetches what is missing by then.
FETCH_EVERY_S = 5.0
# After Redis was away, its leader can renew the lease for so long before a standby asks for it: what the leader knows
# still holds, and a takeover would only start everything again.
PATIENCE_S = 5.0
# A leader that is not ready for longer, for instance because a model cannot run there, keeps no old workers running.
LEFT_FOR_S = 300.0


class Standby:
    """
    Attributes:
        outcome: the latest answer to the request for the lease.
    """

    def __init__(
        self,
        registry: SharedRegistry,
        artifacts: Artifacts,
        end_left: Callable[[], Awaitable[None]],
        stopping: StopRequests,
    ) -> None:
        """``end_left`` drains the workers that this home left running, and ends its containers."""
        self._registry = registry
        self._artifacts = artifacts
        self._end_left = end_left
        self._stopping = stopping
        self._patient_until_s = float("-inf")
        self.outcome: Lease | Leader | Away | RegistryUnavailable = Away("the registry was not asked yet")

    async def ask(self) -> Lease | None:
        """Ask for the lease once.

        Raises:
            RegistryUnavailable: as ``SharedRegistry.acquire``.
        """
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
                    self._refuse(error)
                reap_children()
                if isinstance(self.outcome, Leader):
                    is_over = self.outcome.is_ready or clock_s() - led_since_s > LEFT_FOR_S
                    if has_left and is_over:
                        has_left = False
                        await self._end_left()
                else:
                    led_since_s = clock_s()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.requested(), ASK_EVERY_S)
            return None
        finally:
            fetching.cancel()
            await asyncio.wait([fetching])

    def _refuse(self, error: RegistryUnavailable) -> None:
        if str(self.outcome) != str(error):
            log.error("%(error)s", {"error": error})
        self.outcome = error

    async def _keep_fetching(self) -> None:
        while True:
            await fetch_missing(self._registry, self._artifacts)
            await asyncio.sleep(FETCH_EVERY_S)


class StandbyOperations:
    """What the management API of a standby answers; see ``management.operations.Operations``.

    Calls are refused rather than passed on to the leader: whoever calls learns where to call, and gets no answer from a
    server that may be the leader no more.
    """

    def __init__(
        self,
        standby: Standby,
        registry: SharedRegistry,
        home: Path,
        place: Place,
        stop: StopRequests,
        options: dict[str, OptionStatus],
    ) -> None:
        self._standby = standby
        self._registry = registry
        self._home = home
        self._place = place
        self._stopping = stop
        self._options = options
        self._started_s = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        """Every other method refuses."""
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
        """A standby has no workers, applications or models: all scrapes get its own state."""
        del by_worker, applications, models
        return render(Scrape(await self.status()))

    async def why_not_ready(self) -> list[str]:
        return [who_leads(self._standby)]

    async def server_logs(self, name: str | None, lines: int, after: dict[str, str]) -> Logs:
        del name
        return logs_of({"supervisor": self._home / "logs" / "supervisor.log"}, after, lines)

    async def stop(self) -> Stopping:
        self._stopping.request()
        return Stopping()


def who_leads(standby: Standby) -> str:
    """Why a standby answers neither queries nor operators, and who does."""
    match standby.outcome:
        case Leader(epoch=epoch, address=address):
            return f"this server is a standby: the server at {address} leads, with epoch {epoch}; ask there"
        case Away(why=why):
            return f"this server is a standby, and who leads is not known: {why}"
        case RegistryUnavailable() as error:
            return f"this server is a standby, and cannot lead: {error}"
    return "this server is taking over: ask again in a moment"


def reap_children() -> None:
    """Collect the status of children that have ended: a supervisor that stepped down keeps them, and watches none."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
