"""Keeps the lease of a supervisor that leads, and says whether it may act."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from clipper.api.schemas import LeaseStatus
from clipper.errors import NotLeader, RegistryUnavailable
from clipper.supervisor.registry.lease import Lease
from clipper.supervisor.registry.shared import EPOCHS, Away, Renewed, SharedRegistry, clock_s

log = logging.getLogger(__name__)

READY_POLL_S = 0.5
# Changes that no call waits for, such as a version becoming ready, are on disk at most this much later.
SYNC_EVERY_S = 1.0


class Leadership:
    """Keeps a lease. ``standby``: the address of a server that stands by. ``lost``: done once it no longer leads."""

    def __init__(self, registry: SharedRegistry, lease: Lease, address: str, since: float) -> None:
        """Keep ``lease``, which began at ``since``, in seconds since 1970. ``address`` is our management port's."""
        self.registry = registry
        self._lease = lease
        self._address = address
        self._since = since
        self.standby: str | None = None
        self._is_ready = False
        self._renewals_failed = 0
        self._raising: asyncio.Task[None] | None = None
        self.lost = asyncio.get_running_loop().create_task(self._keep())
        self._syncing = asyncio.get_running_loop().create_task(self._keep_on_disk())

    @property
    def epoch(self) -> int:
        return self._lease.epoch

    def may_act(self) -> bool:
        """Whether certainly nobody else leads, so that things may be changed that all supervisors share."""
        return self._lease.may_act(clock_s())

    def take_epoch_above(self, epoch: int) -> None:
        """Give up this lease for one with an epoch above ``epoch``, which workers obey and Redis has forgotten."""
        self._raising = asyncio.get_running_loop().create_task(self._raise_epoch(epoch))

    async def tell_when_ready(self, problems: Callable[[], Awaitable[list[str]]]) -> None:
        """Wait until ``problems`` returns none; from then on, tell standbys that queries are answered."""
        while await problems():
            await asyncio.sleep(READY_POLL_S)
        self._is_ready = True

    def problems(self) -> list[str]:
        """Return why changes are refused; empty if they are not."""
        if self._lease.silent_since_s is None:
            return []
        seconds = clock_s() - self._lease.silent_since_s
        return [
            f"{self._lease.why_silent}. It has not answered for {seconds:.0f} s. Until it does, changes are refused; "
            "queries are answered, and the processes of this machine keep running"
        ]

    def status(self) -> LeaseStatus:
        return LeaseStatus(
            role="leader",
            registry=self.registry.shown_address,
            epoch=self._lease.epoch,
            leader=self._address,
            since=self._since,
            renewed_s_ago=self._lease.age_s(clock_s()),
            standby=self.standby,
            renewals_failed=self._renewals_failed,
        )

    async def release(self) -> None:
        """Let a standby take over at once. From now on this server changes nothing shared."""
        self.lost.cancel()
        self._lease.lose("this server has given its lease back")
        try:
            await asyncio.to_thread(self.registry.release)
        except RegistryUnavailable as error:
            log.warning("the lease could not be given back, and ends by itself: %(error)s", {"error": error})

    async def _raise_epoch(self, epoch: int) -> None:
        while self._lease.why_lost is None:
            try:
                # The count of epochs stands at this lease's epoch, and the next lease gets the next one.
                self.registry.reserve(EPOCHS, epoch - self._lease.epoch)
            except NotLeader as error:
                self._lease.lose(str(error))
            except RegistryUnavailable as error:
                log.error("no later epoch can be taken now: %(error)s", {"error": error})
                await asyncio.sleep(READY_POLL_S)
            else:
                self._lease.lose(f"workers obey epoch {epoch}, and this server takes the lease again with a later one")

    async def _keep_on_disk(self) -> None:
        """Notice a loss of changes, also during a takeover, which may take longer than Redis remembers their names.

        ``problems`` say if Redis is away.
        """
        while not self.lost.done():
            with contextlib.suppress(RegistryUnavailable):
                await self.registry.sync()
            await asyncio.sleep(SYNC_EVERY_S)

    async def _keep(self) -> str:
        lease = self._lease
        while lease.why_lost is None:
            await asyncio.sleep(max(0.0, lease.renew_at_s - clock_s()))
            asked_at_s = clock_s()
            # On a thread: it takes seconds to notice that Redis is away.
            answer = await asyncio.to_thread(self.registry.renew, self._is_ready)
            if isinstance(answer, Renewed):
                lease.confirm(asked_at_s)
                self.standby = answer.standby
                if self.registry.doubt is not None:
                    # The registry is read again, so that memory and storage are the same.
                    lease.lose(f"{self.registry.doubt}; this server starts again with what is stored")
            elif isinstance(answer, Away):
                if lease.silent_since_s is None:
                    log.error("%(error)s", {"error": answer.why})
                lease.miss(asked_at_s, clock_s(), answer.why)
                self._renewals_failed += 1
            else:
                lease.lose(f"another server leads now, with epoch {answer.epoch}: {answer.address}")
        return lease.why_lost
