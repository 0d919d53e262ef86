"""One container process, from its start to its end."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from clipper.containers.protocol.messages import Welcome
from clipper.errors import ContainerFailed, ProtocolViolation
from clipper.managers import logs
from clipper.managers.probe import Probe
from clipper.managers.processes import ManagedProcess, ProcessFolder
from clipper.managers.reconcile.plan import Phase, Slot
from clipper.registry.records import VersionSpec

log = logging.getLogger(__name__)

# How often to dial a container that is still loading its model.
DIAL_EVERY_S = 0.02
# One that accepts a connection has only to answer HELLO; a model that holds the interpreter delays it.
HANDSHAKE_TIMEOUT_S = 5.0
# One that an earlier supervisor saw ready answers HELLO after its batch in hand at the latest.
ADOPTION_TIMEOUT_S = 10.0
PING_EVERY_S = 1.0
PING_TIMEOUT_S = 10.0
# For the batch in hand when it is told to stop.
STOP_GRACE_S = 5.0
# A process whose connection breaks is most likely exiting, and its exit tells more.
EXIT_AFTER_LOSS_S = 1.0
LOG_TAIL_LINES = 20


class ContainerNote(Struct, frozen=True):
    """What a container's process record says besides: enough to go on with it. ``ready``: a supervisor saw it so."""

    model: str
    version: str
    index: int
    id: str
    socket: str
    spec: VersionSpec
    ready: bool = False

    @property
    def slot(self) -> Slot:
        return Slot(self.model, self.version, self.index)


@dataclass(frozen=True, slots=True)
class Death:
    """How a replica ended on its own. ``uptime_s`` is 0, and ``log_tail`` its own last lines, if it was never ready."""

    reason: str
    uptime_s: float
    log_tail: tuple[str, ...] = ()


class Replica:
    """A container process and the supervisor's connection to it.

    Attributes:
        phase: ``starting``, ``ready`` or ``stopping``.
        welcome: what the container said of itself; None until it is ready.
        settled: set once it is ready or gone.
    """

    def __init__(
        self,
        note: ContainerNote,
        process: ManagedProcess,
        folder: ProcessFolder,
        log_path: Path,
        log_start_bytes: int,
    ) -> None:
        self.note = note
        self.process = process
        self.phase: Phase = "starting"
        self.welcome: Welcome | None = None
        self.settled = asyncio.Event()
        self._folder = folder
        self._log_path = log_path
        self._log_start_bytes = log_start_bytes
        self._ready_at_s = 0.0

        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.note.socket}"

    async def live(
        self, start_timeout_s: float, batch_timeout_s: Callable[[], float], on_ready: Callable[[], None]
    ) -> Death:
        """Bring it up, then watch it until it ends, or has to be ended because it hangs. The process is gone after.

        Args:
            batch_timeout_s: how long a batch may run at present.
            on_ready: called once it has answered.
        """
        try:
            with closing(await self._answering(start_timeout_s)) as probe:
                self._has_come_up(probe.welcome)
                on_ready()
                reason = await self._watch(probe, batch_timeout_s)
            return Death(reason, asyncio.get_running_loop().time() - self._ready_at_s)
        except ContainerFailed as error:
            return Death(str(error), 0.0, tuple(error.log_tail))
        finally:
            await self.process.stop(grace_s=0)
            self.settled.set()

    def retire(self) -> None:
        """Take it out of service. It goes on answering until it is stopped."""
        self.phase = "stopping"

    def begin_to_stop(self) -> None:
        """Let it finish the batch in hand, then end it; ``live`` returns when it is gone."""
        self.phase = "stopping"
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self.process.stop(STOP_GRACE_S))

    def _has_come_up(self, welcome: Welcome) -> None:
        self.welcome = welcome
        self._ready_at_s = asyncio.get_running_loop().time()
        self.settled.set()
        if self.phase == "starting":
            self.phase = "ready"
        extra = msgspec.to_builtins(msgspec.structs.replace(self.note, ready=True))
        try:
            self._folder.update(msgspec.structs.replace(self.process.record, extra=extra))
        except OSError as error:
            log.warning("that %s is ready cannot be recorded: %s", self.note.id, error)

    async def _answering(self, timeout_s: float) -> Probe:
        """Dial until it answers HELLO.

        Raises:
            ContainerFailed: it exited, said it is something else, or was not ready in time.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not self.process.exited.is_set():
            patience_s = max(DIAL_EVERY_S, min(HANDSHAKE_TIMEOUT_S, deadline_s - loop.time()))
            try:
                return self._checked(await Probe.open(self.note.socket, patience_s))
            except ProtocolViolation as error:
                raise self._failed(f"does not speak the container protocol: {error}") from error
            except OSError:
                # It does not listen yet; or never will, which its exit or the deadline tells.
                if loop.time() >= deadline_s:
                    raise self._failed(f"was not ready within its start_timeout_s of {timeout_s:g} s") from None
            await asyncio.sleep(DIAL_EVERY_S)
        raise self._failed(f"{self.process.how_it_ended} before it was ready")

    def _checked(self, probe: Probe) -> Probe:
        said = Slot(probe.welcome.model, probe.welcome.version, self.note.index)
        if said != self.note.slot:
            probe.close()
            raise self._failed(f"says that it is {said.model_id}")
        return probe

    def _failed(self, what: str) -> ContainerFailed:
        lines = logs.tail(self._log_path, LOG_TAIL_LINES, self._log_start_bytes)
        last_words = f": {lines[-1]}" if lines else ""
        return ContainerFailed(f"container {self.note.slot} {what}{last_words}", list(lines))

    async def _watch(self, probe: Probe, batch_timeout_s: Callable[[], float]) -> str:
        """Ping until something is wrong; return what."""
        while True:
            if await self.process.has_exited_within(PING_EVERY_S):
                return f"container {self.note.slot} {self.process.how_it_ended}"
            try:
                busy_s = await probe.ping(PING_TIMEOUT_S) / 1e6
            except TimeoutError:
                return f"container {self.note.slot} hung: no answer to a ping for {PING_TIMEOUT_S:g} s"
            except (OSError, ProtocolViolation) as error:
                if await self.process.has_exited_within(EXIT_AFTER_LOSS_S):
                    return f"container {self.note.slot} {self.process.how_it_ended}"
                return f"container {self.note.slot} is alive but its connection broke: {error}"
            if busy_s > batch_timeout_s():
                return f"container {self.note.slot} hung: a batch ran for over {batch_timeout_s():g} s"
