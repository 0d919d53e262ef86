"""One container, from its start to its end."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from clipper.containers.protocol.messages import Welcome
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ClipperError, ContainerFailed, ProtocolViolation
from clipper.managers import logs
from clipper.managers.bring_up import EXIT_AFTER_LOSS_S, BringUp
from clipper.managers.launcher import Container, ContainerNote, Launcher
from clipper.managers.probe import Probe
from clipper.managers.reconcile.plan import Phase
from clipper.managers.warm_up import SampleSource

log = logging.getLogger(__name__)

# One that an earlier supervisor saw ready answers HELLO after its batch in hand at the latest.
ADOPTION_TIMEOUT_S = 10.0
PING_EVERY_S = 1.0
PING_TIMEOUT_S = 10.0
# For the batch in hand when it is told to stop.
STOP_GRACE_S = 5.0
# What a warm-up sets off, such as processes that fork without end, may end a container a little later: what keeps it
# within its bounds looks twice a second, and a machine that is out of memory is slow.
WARM_UP_AFTERMATH_S = 10.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a replica ended on its own.

    Attributes:
        uptime_s: 0 if it was never ready.
        log_tail: its own last lines, if it was never ready.
        warm_up_rows: how many rows the warm-up batch had over which, or shortly after which, it ended; else 0.
    """

    reason: str
    uptime_s: float
    log_tail: tuple[str, ...] = ()
    warm_up_rows: int = 0


class Replica:
    """A container and the supervisor's connection to it.

    Attributes:
        phase: ``starting``, ``ready`` or ``stopping``.
        welcome: what the container said of itself; None until it is ready.
        settled: set once it is ready or gone.
        progress: what goes on before its container is started; None once that is.
    """

    def __init__(
        self, note: ContainerNote, launcher: Launcher, log_path: Path, container: Container | None = None
    ) -> None:
        """``container``: one that runs already; else ``live`` has it launched."""
        self.note = note
        self.phase: Phase = "starting"
        self.welcome: Welcome | None = None
        self.settled = asyncio.Event()
        self.progress: str | None = None
        self._launcher = launcher
        self._container = container
        self._log_path = log_path
        self._log_start_bytes = logs.size_bytes(log_path)
        self._ready_at_s = 0.0
        self._bring_up: BringUp | None = None
        self._launching: asyncio.Task[Container] | None = None
        self._is_to_stop = False
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> ReplicaAddress | None:
        """Where it can be dialled; None until its container is started."""
        return None if self._container is None else self._container.address

    @property
    def pid(self) -> int | None:
        return None if self._container is None else self._container.pid

    @property
    def warning(self) -> str | None:
        """How the model and what it runs with do not quite fit."""
        return None if self._container is None else self._container.warning

    async def live(
        self,
        start_timeout_s: float,
        batch_timeout_s: Callable[[], float],
        samples: SampleSource,
        on_ready: Callable[[], None],
    ) -> Death:
        """Bring it up, then watch it until it ends, or has to be ended because it hangs. The container is gone after.

        Args:
            batch_timeout_s: how long a batch may run at present.
            samples: what to warm it up with.
            on_ready: called once it can be put into service.
        """
        try:
            self._container = self._container or await self._launched()
            return await self._live(self._container, start_timeout_s, batch_timeout_s, samples, on_ready)
        except ContainerFailed as error:
            rows = 0 if self._bring_up is None else self._bring_up.warm_up_rows
            return Death(str(error), 0.0, tuple(error.log_tail), rows)
        finally:
            await self._launcher.clean_up(self.note)
            self.settled.set()

    def retire(self) -> None:
        """Take it out of service. It goes on answering until it is stopped."""
        self.phase = "stopping"

    def begin_to_stop(self) -> None:
        """Let it finish the batch in hand, then end it; ``live`` returns when it is gone."""
        self.phase = "stopping"
        self._is_to_stop = True
        if self._launching is not None:
            self._launching.cancel()
        if self._container is not None and self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._container.stop(STOP_GRACE_S))

    async def save_log(self) -> None:
        """Have all in its log that it has written until now."""
        if self._container is not None:
            await self._container.save_log()

    async def _launched(self) -> Container:
        launch = self._launcher.launch(self.note, self._log_path, self._tell)
        self._launching = asyncio.get_running_loop().create_task(launch)
        try:
            container = await self._launching
        except (ClipperError, OSError) as error:
            log_tail = error.log_tail if isinstance(error, ContainerFailed) else []
            raise ContainerFailed(f"container {self.note.slot} cannot be started: {error}", log_tail) from error
        except asyncio.CancelledError:
            if not self._is_to_stop:
                raise
            raise ContainerFailed(f"container {self.note.slot} was stopped before it was started") from None
        finally:
            self._launching = self.progress = None
        log.info("started %s, pid %s", self.note.id, container.pid)
        return container

    def _tell(self, text: str) -> None:
        self.progress = text

    async def _live(
        self,
        container: Container,
        start_timeout_s: float,
        batch_timeout_s: Callable[[], float],
        samples: SampleSource,
        on_ready: Callable[[], None],
    ) -> Death:
        bring_up = self._bring_up = BringUp(
            self.note, container, self._log_path, self._log_start_bytes, start_timeout_s
        )
        if self._is_to_stop:
            self.begin_to_stop()
        try:
            with closing(await bring_up.answering()) as probe:
                if not self.note.ready:
                    await bring_up.warm_up(probe.welcome, samples)
                self._has_come_up(container, probe.welcome)
                on_ready()
                reason = await self._watch(container, probe, batch_timeout_s)
            uptime_s = asyncio.get_running_loop().time() - self._ready_at_s
            return Death(reason, uptime_s, (), bring_up.warm_up_rows if uptime_s < WARM_UP_AFTERMATH_S else 0)
        finally:
            await container.stop(grace_s=0)

    def _has_come_up(self, container: Container, welcome: Welcome) -> None:
        self.welcome = welcome
        self._ready_at_s = asyncio.get_running_loop().time()
        self.settled.set()
        if self.phase == "starting":
            self.phase = "ready"
        container.note_ready()

    async def _watch(self, container: Container, probe: Probe, batch_timeout_s: Callable[[], float]) -> str:
        """Ping until something is wrong; return what."""
        while True:
            if await container.has_exited_within(PING_EVERY_S):
                return f"container {self.note.slot} {container.how_it_ended}"
            try:
                busy_s = await probe.ping(PING_TIMEOUT_S) / 1e6
            except TimeoutError:
                return f"container {self.note.slot} hung: no answer to a ping for {PING_TIMEOUT_S:g} s"
            except (OSError, ProtocolViolation) as error:
                if await container.has_exited_within(EXIT_AFTER_LOSS_S):
                    return f"container {self.note.slot} {container.how_it_ended}"
                return f"container {self.note.slot} is alive but its connection broke: {error}"
            if busy_s > batch_timeout_s():
                return f"container {self.note.slot} hung: a batch ran for over {batch_timeout_s():g} s"
