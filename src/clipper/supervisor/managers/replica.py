"""The life of a container: start, way into service, and end. A few containers of this machine start at a time."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from clipper.base.masking import masked, secrets_of
from clipper.base.processes import proc
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ClipperError, ContainerFailed, ProtocolViolation, RequestError
from clipper.model.protocol.asks import CANNOT_ASK
from clipper.model.protocol.messages import Welcome
from clipper.supervisor.managers import logs
from clipper.supervisor.managers.caller import Caller, Sample, SampleSource, warm_up
from clipper.supervisor.managers.launcher import Container, ContainerNote, Launcher, NodeLost
from clipper.supervisor.managers.logs import without_credentials
from clipper.supervisor.managers.reconcile.plan import Phase, Slot, StartTime

log = logging.getLogger(__name__)

# The interval between attempts to dial a container that is still loading its model.
DIAL_EVERY_S = 0.02
# The share of its start timeout that a container may take for rows that Clipper made: a model that computes for ever on
# zeros is started again without them, before its operator has waited for two start timeouts.
MADE_SHARE = 0.25
# A container that has accepted a connection only has to answer HELLO. A model that holds the interpreter delays that.
HANDSHAKE_TIMEOUT_S = 5.0
# A process whose connection breaks is most likely exiting, and its exit status says more.
EXIT_AFTER_LOSS_S = 1.0
LOG_TAIL_LINES = 20
# A container's last line begins with this if it says why the container ends.
SAYS_WHY = "clipper: "


@dataclass(eq=False)
class BringUp:
    """The way of a container into service, in ``_timeout_s``, or longer while it is busy: see ``StartTime``.

    A step that fails raises ``ContainerFailed`` with the log's last lines, without the values of ``_hidden``.
    ``warm_up_rows`` are the rows of the last warm-up batch; 0 without one, or if the model refused the given sample.
    """

    _note: ContainerNote
    _container: Container
    _log_path: Path
    _log_start_bytes: int
    _timeout_s: float
    _hidden: Collection[str] = ()

    def __post_init__(self) -> None:
        self.warm_up_rows = 0
        self._time = StartTime(asyncio.get_running_loop().time(), self._timeout_s)

    async def answering(self) -> Caller:
        """Dial until the container answers HELLO, and check that it is the right model."""
        loop = asyncio.get_running_loop()
        while not self._container.exited.is_set():
            patience_s = max(DIAL_EVERY_S, min(HANDSHAKE_TIMEOUT_S, self._time.deadline_s - loop.time()))
            try:
                probe = await Caller.probe(self._container.address, patience_s)
                said = Slot(probe.welcome.model, probe.welcome.version, self._note.index)
                if said != self._note.slot:
                    probe.close()
                    raise await self._failed(f"says that it is {said.model_id}")
                return probe
            except ProtocolViolation as error:
                raise await self._failed(f"does not speak the container protocol: {error}") from error
            except OSError:
                # It does not listen yet. If it never does, it exits or its time runs out.
                if self._is_too_late(loop.time()):
                    raise await self._failed(f"was not ready {self._in_time}") from None
            await asyncio.sleep(DIAL_EVERY_S)
        raise await self._failed(f"{self._container.how_it_ended} before it was ready")

    async def warm_up(self, welcome: Welcome, samples: SampleSource) -> None:
        """Let the container evaluate a sample, if there is one.

        A failure on a sample that did not come with the deployment is only logged. If a sample kills the container,
        ``warm_up_rows`` says so, and the next start sends fewer rows; or none, if a row that did not come with the
        deployment takes too long.
        """
        now_s, time = asyncio.get_running_loop().time(), self._time
        # A model that loaded slowly may also warm up slowly, on the same busy machine.
        until_s = max(time.deadline_s, min(time.last_s, now_s + self._timeout_s / 2))
        sample = None
        try:
            async with asyncio.timeout_at(until_s) as timeout:
                sample = await samples.find(self._note.slot.model_id, welcome.input_type)
                if sample is not None and sample.origin == "made":
                    timeout.reschedule(min(until_s, asyncio.get_running_loop().time() + self._timeout_s * MADE_SHARE))
                failure = None if sample is None else await self._failure_on(sample, welcome)
        except RequestError as error:
            raise ContainerFailed(f"the sample for {self._note.slot.model_id} is not valid: {error}") from error
        except TimeoutError:
            if sample is not None and sample.origin != "given":
                # It still computes on the sample, and could not answer queries meanwhile.
                self.warm_up_rows = 1
                rows = "rows that Clipper made" if sample.origin == "made" else "the input of a recent query"
                raise await self._failed(f"did not finish its warm-up with {rows} in time") from None
            raise await self._failed(f"did not finish its warm-up {self._in_time}") from None
        if sample is None:
            return
        if failure is None or sample.origin == "made":
            samples.has_tried(self._note.slot.model_id, failure)
        if failure is None:
            return
        if CANNOT_ASK in failure:  # it cannot get warmer before a worker serves it
            log.info("%(replica)s was warmed up until its model asked another", self._note.log_fields)
        elif sample.origin == "given":
            self.warm_up_rows = 0
            raise ContainerFailed(f"container {self._note.slot} failed on its sample: {failure}")
        # The sample came from a query that failed, too. The model is warm all the same.
        elif sample.origin == "remembered":
            log.warning(
                "%(replica)s failed on a remembered sample: %(error)s", {**self._note.log_fields, "error": failure}
            )
        else:
            log.info(
                "%(replica)s failed on a row that Clipper made, which says nothing against it: %(error)s",
                {**self._note.log_fields, "error": failure},
            )

    async def welcome_of_warm(self, welcome: Welcome) -> Welcome:
        """Return what the container says once it is warm: it may have learned the type of its outputs by then."""
        if welcome.output_type is None:
            with suppress(OSError, ProtocolViolation):  # TimeoutError is an OSError
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    with closing(await Caller.dial(self._container.address)) as caller:
                        return caller.welcome
        return welcome

    def _is_too_late(self, now_s: float) -> bool:
        if not self._time.has_to_look(now_s):
            return False
        # A container that was ready before has nothing to load; and process ids of another machine mean nothing here.
        pid = None if self._note.ready or self._container.node is not None else self._container.pid
        return self._time.is_over(now_s, None if pid is None else proc.session_busy_s(pid))

    @property
    def _in_time(self) -> str:
        if self._note.ready:
            return f"within {self._timeout_s:g} s, though the earlier server had seen it ready"
        longer = ", and longer, as it was busy" if self._time.is_extended else ""
        return (
            f"within its start_timeout_s of {self._timeout_s:g} s{longer}: raise it by --start-timeout, or try again, "
            "since a first start also reads the framework's files from the disk"
        )

    async def _failure_on(self, sample: Sample, welcome: Welcome) -> str | None:
        container = self._container

        def on_batch(rows: int) -> None:
            self.warm_up_rows = rows

        try:
            failure = await warm_up(container.address, welcome, sample, on_batch)
            return None if failure is None else masked(failure, self._hidden)
        except ProtocolViolation as error:
            raise await self._failed(f"does not speak the container protocol: {error}") from error
        except OSError as error:
            if await container.has_exited_within(EXIT_AFTER_LOSS_S):
                raise await self._failed(f"{container.how_it_ended} over the warm-up sample") from error
            raise await self._failed(f"closed its connection over the warm-up sample: {error}") from error

    async def _failed(self, what: str) -> ContainerFailed:
        await self._container.save_log()
        found = logs.tail(self._log_path, LOG_TAIL_LINES, self._log_start_bytes)
        lines = [masked(text, self._hidden) for line in found for text in logs.in_text(line)][-LOG_TAIL_LINES:]
        why = ""
        if lines:
            said = lines[-1].startswith(SAYS_WHY)
            why = f": {lines[-1].removeprefix(SAYS_WHY)}" if said else f"; its log ends with: {lines[-1]}"
        return ContainerFailed(f"container {self._note.slot} {what}{why}", lines)


# Containers that start at once for each core: while some wait for the disk or the network, others compute.
PER_CORE = 4
# Most containers are ready sooner. A container that takes longer, or hangs, no longer counts and delays no others.
COUNTED_S = 10.0


class StartTurns:
    """The containers that start now, at most ``at_once``, and those that wait for their turn."""

    def __init__(self, at_once: int) -> None:
        self._room = asyncio.Semaphore(at_once)

    @property
    def is_full(self) -> bool:
        """Whether the next container has to wait."""
        return self._room.locked()

    async def begin(self) -> Callable[[], None]:
        """Wait until another container may start. Call the returned function once it is ready or gone."""
        await self._room.acquire()
        timer: asyncio.TimerHandle | None = None

        def end() -> None:
            nonlocal timer
            if timer is not None:
                timer.cancel()
                timer = None
                self._room.release()

        timer = asyncio.get_running_loop().call_later(COUNTED_S, end)
        return end


# A container that an earlier supervisor saw ready answers HELLO at the latest after its current batch.
ADOPTION_TIMEOUT_S = 10.0
PING_EVERY_S = 1.0
PING_TIMEOUT_S = 10.0
# The time to finish its current batch when it has to stop.
STOP_GRACE_S = 5.0
# A death this long after a warm-up may be due to it, such as by processes that fork without end: bounds are checked
# only twice a second, and a machine that runs out of memory is slow.
WARM_UP_AFTERMATH_S = 10.0


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a replica that nobody asked to stop.

    Attributes:
        uptime_s: 0 if it was never ready; then ``log_tail`` has its last lines.
        warm_up_rows: the rows of the warm-up batch during or shortly after which it ended; 0 if it ended otherwise.
        is_of_node: whether it went with its node, which says nothing about its model.
    """

    reason: str
    uptime_s: float
    log_tail: tuple[str, ...] = ()
    warm_up_rows: int = 0
    is_of_node: bool = False


class Replica:
    """A container and the supervisor's connection to it.

    Attributes:
        welcome: its description of itself; None until it is ready.
        settled: set once it is ready or gone.
        progress: the step before its container is started.
    """

    def __init__(
        self,
        note: ContainerNote,
        launcher: Launcher,
        log_path: Path,
        container: Container | None = None,
        starts: StartTurns | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make a replica of ``container``, which runs already; without it, ``live`` launches a container.

        ``starts`` are the starts among which it waits for its turn; None if it need not wait. ``variables`` are the
        version's own: see ``Launcher.launch``.
        """
        self.note = note
        self._variables = variables
        self.phase: Phase = "starting"
        self.welcome: Welcome | None = None
        self.settled = asyncio.Event()
        self.progress: str | None = None
        self._launcher = launcher
        self._container = container
        self._starts = starts
        self._end_start: Callable[[], None] = lambda: None
        self._log_path = log_path
        self._log_start_bytes = logs.size_bytes(log_path)
        self._bring_up: BringUp | None = None
        self._launching: asyncio.Task[Container] | None = None
        self._is_to_stop = False
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> ReplicaAddress | None:
        """The address to dial; None until its container is started."""
        return None if self._container is None else self._container.address

    @property
    def pid(self) -> int | None:
        return None if self._container is None else self._container.pid

    @property
    def warning(self) -> str | None:
        """A sentence on how its packages differ from those with which the model was saved."""
        return None if self._container is None else self._container.warning

    @property
    def node(self) -> str | None:
        """The machine on which it runs; None if it is this machine, or if there is no container yet."""
        return None if self._container is None else self._container.node

    async def live(
        self,
        start_timeout_s: float,
        batch_timeout_s: Callable[[], float],
        samples: SampleSource,
        on_ready: Callable[[], None],
    ) -> Death:
        """Bring the container up and watch it until it ends, or end it because it hangs.

        When this returns, the container is gone. ``on_ready`` is called once it can be put into service.
        """
        try:
            container = self._container = self._container or await self._launched()
            bring_up = self._bring_up = BringUp(
                *(self.note, container, self._log_path, self._log_start_bytes, start_timeout_s),
                secrets_of(self._variables),
            )
            if self._is_to_stop:
                self.begin_to_stop()  # it was asked to stop when there was no container yet
            try:
                with closing(await bring_up.answering()) as probe:
                    if not self.note.ready:
                        await bring_up.warm_up(probe.welcome, samples)
                    self.welcome = await bring_up.welcome_of_warm(probe.welcome)
                    ready_at_s = asyncio.get_running_loop().time()
                    self.settled.set()
                    self._end_start()
                    if self.phase == "starting":
                        self.phase = "ready"
                    container.note_ready()
                    on_ready()
                    reason = await self._watch(container, probe, batch_timeout_s)
                uptime_s = asyncio.get_running_loop().time() - ready_at_s
                return Death(reason, uptime_s, (), bring_up.warm_up_rows if uptime_s < WARM_UP_AFTERMATH_S else 0)
            finally:
                # Even after cancellation and bugs of ours: a container that nobody watches would keep its share of the
                # machine, and get no queries.
                await container.stop(grace_s=0)
        except ContainerFailed as error:
            rows = 0 if self._bring_up is None else self._bring_up.warm_up_rows
            is_lost = isinstance(error.__cause__, NodeLost) or (self._container is not None and self._container.is_lost)
            return Death(str(error), 0.0, tuple(error.log_tail), rows, is_of_node=is_lost)
        finally:
            self._end_start()
            try:
                await self._launcher.clean_up(self.note)
            finally:
                self.settled.set()

    def retire(self) -> None:
        """Take the replica out of service. It answers until it is stopped."""
        self.phase = "stopping"

    def begin_to_stop(self) -> None:
        """Let the replica finish its current batch, then end it. ``live`` returns when it is gone."""
        self.phase = "stopping"
        self._is_to_stop = True
        if self._launching is not None:
            self._launching.cancel()
        if self._container is not None and self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._container.stop(STOP_GRACE_S))

    async def save_log(self) -> str | None:
        """Bring the container's log up to date. Return why that cannot be done; None if it is."""
        return None if self._container is None else await self._container.save_log()

    async def _launched(self) -> Container:
        def on_progress(text: str) -> None:
            self.progress = without_credentials(text)

        async def launch() -> Container:
            if self._starts is not None:
                if self._starts.is_full:
                    on_progress("waiting while others start")
                self._end_start = await self._starts.begin()
            return await self._launcher.launch(self.note, self._log_path, on_progress, self._variables)

        self._launching = asyncio.get_running_loop().create_task(launch())
        if self._is_to_stop:  # it was asked to stop before this task began
            self._launching.cancel()
        try:
            container = await self._launching
        except (ClipperError, OSError) as error:
            log_tail = error.log_tail if isinstance(error, ContainerFailed) else []
            raise ContainerFailed(
                f"container {self.note.slot} cannot be started: {without_credentials(str(error))}",
                [without_credentials(line) for line in log_tail],
            ) from error
        except asyncio.CancelledError:
            if not self._is_to_stop:
                raise
            raise ContainerFailed(f"container {self.note.slot} was stopped before it was started") from None
        finally:
            self._launching = self.progress = None
        log.info("started %(replica)s, pid %(pid)s", {**self.note.log_fields, "pid": container.pid})
        return container

    async def _watch(self, container: Container, probe: Caller, batch_timeout_s: Callable[[], float]) -> str:
        """Ping until something is wrong; return the fault."""
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
