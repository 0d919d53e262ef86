"""The process of a query worker: started again when it dies, and kept up to date with snapshots."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from clipper.base.processes.proc import is_own_shortage
from clipper.base.processes.process import ProcessRecord
from clipper.base.tls.material import TlsMaterial
from clipper.control import messages as commands
from clipper.control.address import ControlAddress, TcpAddress
from clipper.control.client import Connections
from clipper.control.difference import EPOCH_BITS
from clipper.control.shared_settings import SharedSettings
from clipper.control.snapshot import Snapshot
from clipper.errors import ClipperError, ProtocolViolation
from clipper.settings.fields import shared
from clipper.supervisor.managers.reconcile.plan import NO_DEATHS
from clipper.supervisor.managers.worker_host import RunningWorker, WorkerHost, WorkerStart
from clipper.supervisor.rollout.facts import WorkerPhase
from clipper.supervisor.workers.apply_messages import ApplyMessage, ApplyMessages, without_records
from clipper.supervisor.workers.settings import INSTANCES, Credentials, WorkerNote, WorkerSettings, worker_note
from clipper.values.types import STORE_VARIABLE

R = TypeVar("R")

log = logging.getLogger(__name__)

# A worker imports its libraries and listens, which takes this long only on an overloaded machine.
START_TIMEOUT_S = 30.0
DIAL_EVERY_S = 0.02
# How long a worker may wait for replicas before it answers ``Applied``, and how long we wait for that answer.
SETTLE_TIMEOUT_S = 5.0
APPLY_TIMEOUT_S = 15.0
# How often a worker is checked, so that a hung worker is noticed: there may be no other command for days.
CHECK_EVERY_S = 5.0
CHECK_TIMEOUT_S = 10.0
# A worker whose connection breaks is most likely exiting, and its exit status says more.
EXIT_AFTER_LOSS_S = 1.0
# The time for open queries when a worker has to stop. The worker itself keeps to this; we wait slightly longer.
DRAIN_TIMEOUT_S = 10.0
DRAIN_MARGIN_S = 1.0
# At most this many snapshots are sent before the first reply, which may wait for a replica that hangs.
MAX_APPLYING = 4
# Asks for the worker's generation, without a megabyte of statistics: the worker answers in one turn of its loop, even
# with thousands of models.
BASICS = commands.GetStatistics((), ())


class WorkerProcess:
    """Keeps a query worker running and up to date.

    Attributes:
        instance: the number of its process's start, which is the upper part of the ids of its queries.
        applied: its last reply to a snapshot; None before the first.
        found_generation: the generation in force when it was first dialled; 0 if there was none, or before that.
        is_adopted: whether another supervisor started its process.
        is_spare: whether it is the spare, which is not started again once it has been renewed.
    """

    def __init__(
        self,
        index: int,
        settings: WorkerSettings,
        host: WorkerHost,
        store: str,
        next_instance: Callable[[], int],
        on_change: Callable[[], None],
        build: str = "",
        environment: Mapping[str, str] | None = None,
        messages: ApplyMessages | None = None,
        epoch: int = 0,
        credentials: Credentials | None = None,
        *,
        is_spare: bool = False,
        node: str = "",
    ) -> None:
        """Make a worker without a process.

        ``store`` is the selection store's address. ``build`` is that of the code with which it is started. ``messages``
        makes the messages for all workers. ``epoch`` is this supervisor's; snapshots may have a later epoch: see
        ``rollout.snapshot_rollout``.
        """
        self.index = index
        self.node = node
        self.is_spare = is_spare
        self.is_adopted = False
        self.is_outdated = False
        self.found_generation = 0
        self.phase: WorkerPhase = "starting"
        self.process: RunningWorker | None = None
        self.applied: commands.Applied | None = None
        self.restarts = 0
        self.last_error: str | None = None
        self.instance = 0
        self.control: ControlAddress | None = None
        self._settings = settings
        self._host = host
        self._store = store
        self._next_instance = next_instance
        self._on_change = on_change
        self._history = NO_DEATHS
        # The instance that last served by a snapshot of ours. If its host starts it again, it is not ahead of us.
        self._told = -1
        self._snapshot: Snapshot | None = None
        self._tls: TlsMaterial | None = None
        self._is_stopping = False
        # The newest snapshot, certificate and stop, as they were sent.
        self._sent: tuple[Snapshot, TlsMaterial | None, bool] | None = None
        self._applying: set[asyncio.Task[None]] = set()
        self._killed_because: str | None = None
        self._build = build
        self._environment = environment or {}
        self._messages = messages or ApplyMessages()
        self._first_epoch = epoch
        self._credentials = credentials
        self._connections = Connections()
        self._knows_records = True
        self._draining: asyncio.Task[None] | None = None
        self._cleaning: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return f"worker-{self.index}"

    @property
    def _epoch(self) -> int:
        told = 0 if self._snapshot is None else self._snapshot.generation >> EPOCH_BITS
        return max(self._first_epoch, told)

    async def adopt(self, record: ProcessRecord, note: WorkerNote) -> bool:
        """Take over a process that an earlier supervisor started, before ``run``; False if it is gone."""
        self.process, self.is_adopted = await self._host.adopt(record), True
        self.instance, self.control = note.instance, note.address
        self._knows_records = note.knows_records
        self.is_outdated = note.is_outdated(self._settings, self._build)
        if self.process is not None:
            log.info("took over %(worker)s, pid %(pid)d", {"worker": self.name, "pid": record.pid})
        return self.process is not None

    async def run(self) -> None:
        """Keep the worker running until cancelled; its process then goes on. A spare ends when it has been renewed."""
        loop = asyncio.get_running_loop()
        # Each turn is the life of one process: it is started or was adopted, is dialled, gets snapshots, and is watched
        # until it is gone. A renewal begins the next turn at once. Any other end counts as a death and is backed off.
        while True:
            ready_at_s = None
            try:
                self._killed_because = None
                self.process = self.process or await self._regained() or await self._launch()
                trouble = await self._dial(self.process)
                if trouble is None:
                    ready_at_s = loop.time()
                    self.phase = "ready"
                    self._begin_to_apply()
                    self._on_change()
                    trouble = await self._watch(self.process)
                self.last_error = self._killed_because or trouble
            except (ClipperError, OSError) as error:
                self.last_error = f"{self.name} cannot be started: {error}"
            except Exception as error:  # a bug of ours, which must not lose the worker: it counts as a death, too
                log.exception("keeping %(worker)s failed", {"worker": self.name})
                self.last_error = f"keeping {self.name} failed: {error!r}"
            uptime_s = 0.0 if ready_at_s is None else loop.time() - ready_at_s
            if self._draining is not None:
                await asyncio.shield(self._draining)
            else:
                self.phase = "stopping"
            # If the process survived, it would share the port with its successor.
            while self.process is not None and not self.process.exited.is_set():
                await self.process.stop(grace_s=0)
            await self._clean_up()
            if self._draining is not None:
                log.info("%(worker)s has drained", {"worker": self.name})
                self._draining, self.last_error, self.phase = None, None, "starting"
                self._on_change()
                if self.is_spare:
                    return
                continue
            log.warning("%(reason)s", {"worker": self.name, "reason": self.last_error})
            self._history = self._history.died(loop.time(), uptime_s)
            self.phase = "crash_loop" if self._history.crash_loop else "backing_off"
            self._on_change()
            await asyncio.sleep(max(0.0, self._history.restart_at_s - loop.time()))
            self.phase = "starting"
            self.restarts += 1

    def renew(self) -> None:
        """Let the worker answer its open queries and exit; it is started again at once, with our code."""
        if self.process is not None and self._draining is None:
            self.phase = "draining"
            self._draining = asyncio.get_running_loop().create_task(self._drain(self.process))

    def tell(
        self, snapshot: Snapshot | None = None, tls: TlsMaterial | None = None, *, is_stopping: bool = False
    ) -> None:
        """Send the worker whatever is newer than its last message: now if it is ready, else as soon as it is.

        ``is_stopping``: let it say that it is not ready, but go on answering queries.
        """
        self._snapshot, self._tls = snapshot or self._snapshot, tls or self._tls
        self._is_stopping = self._is_stopping or is_stopping
        if self.phase == "ready":
            self._begin_to_apply()

    async def ask(self, command: commands.Command[R], timeout_s: float, message: bytes | None = None) -> R:
        """Send a command; return the reply. Raises OSError or ProtocolViolation if no proper reply comes in time."""
        assert self.control is not None, "it was started or adopted"
        secured = None
        if self._credentials is not None and isinstance(self.control, TcpAddress):
            secured = self._credentials.secured(self._epoch, self.instance)
        return await self._connections.ask(self.control, command, timeout_s, message, secured)

    async def leave(self) -> None:
        """Let go of the worker, whose node is lost. ``run`` must have been cancelled."""
        self.phase = "stopping"
        await self._clean_up()

    async def drain(self) -> None:
        """Let the worker answer its open queries, then end it. ``run`` must have been cancelled."""
        self.phase = "stopping"
        if self._draining is not None:
            await self._draining
        elif self.process is not None:
            await self._drain(self.process)
        await self._clean_up()

    async def _drain(self, process: RunningWorker) -> None:
        try:
            await self.ask(commands.Drain(self._epoch), CHECK_TIMEOUT_S)
        except (OSError, ProtocolViolation):
            process.terminate()  # SIGTERM has the same effect
        if not await process.has_exited_within(DRAIN_TIMEOUT_S + DRAIN_MARGIN_S):
            log.warning(
                "%(worker)s has not drained within %(wait_s)g s and is killed",
                {"worker": self.name, "wait_s": DRAIN_TIMEOUT_S},
            )
        await process.stop(grace_s=0)

    async def _clean_up(self) -> None:
        if self._cleaning is None:  # else ``run`` was cancelled over it
            process, self.process = self.process, None
            self.applied = self._sent = None
            self.found_generation = 0
            self._connections.close()
            self._cleaning = asyncio.get_running_loop().create_task(self._remove_files(process))
        await asyncio.shield(self._cleaning)
        self._cleaning = None

    async def _remove_files(self, process: RunningWorker | None) -> None:
        try:
            await self._host.clean_up(self.name, process, self.control)
        except (ClipperError, OSError) as error:  # e.g. its disk is read-only, for a while
            log.warning("the files of %(worker)s cannot be removed: %(error)s", {"worker": self.name, "error": error})

    async def _regained(self) -> RunningWorker | None:
        """Return the process that its host has started again by itself; None if there is none."""
        if (record := await self._host.regain(self.name, self.node)) and (note := worker_note(record)):
            await self.adopt(record, note)
        return self.process

    async def _launch(self) -> RunningWorker:
        self.instance = self._next_instance() % INSTANCES
        self.is_adopted = self.is_outdated = False
        self._knows_records = True
        # The store's address is passed in the environment; ``knows_keys`` is only for the next supervisor.
        settings = msgspec.to_builtins(shared(self._settings, SharedSettings))
        own = {"index": self.index, "instance": self.instance}
        bounds = {"settle_timeout_s": SETTLE_TIMEOUT_S, "drain_timeout_s": DRAIN_TIMEOUT_S}
        note = WorkerNote(
            self.index, self.instance, "", self._settings, self._build, node=self.node, knows_records=True
        )
        started = await self._host.start(
            WorkerStart(
                name=self.name,
                instance=self.instance,
                config={**own, **settings, **bounds},
                environment={STORE_VARIABLE: self._store, **self._environment},
                note=msgspec.to_builtins(note),
                node=self.node,
            )
        )
        self.control = started.control
        return started.process

    async def _dial(self, process: RunningWorker) -> str | None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_TIMEOUT_S
        while loop.time() < deadline_s:
            try:
                found = (await self.ask(BASICS, CHECK_TIMEOUT_S)).worker.generation
                self.found_generation = 0 if self._told == self.instance else found
                return None
            except (TimeoutError, ProtocolViolation) as error:
                return f"{self.name} listens but does not answer: {error!r}"
            except OSError as error:
                if is_own_shortage(error):  # we lack a descriptor, so whether it listens is not known
                    deadline_s = loop.time() + START_TIMEOUT_S
                if await process.has_exited_within(DIAL_EVERY_S):
                    return f"{self.name} {process.how_it_ended} before it was ready: its log says why"
        return f"{self.name} was not ready within {START_TIMEOUT_S:g} s"

    async def _watch(self, process: RunningWorker) -> str:
        """Wait until the worker is gone or hangs; return which."""
        while not await process.has_exited_within(CHECK_EVERY_S):
            try:
                await self._check()
            except (OSError, ProtocolViolation) as error:
                if self._tells_nothing(error):
                    log.warning(
                        "the server cannot tell whether %(worker)s answers: %(error)s",
                        {"worker": self.name, "error": error},
                    )
                elif not await process.has_exited_within(EXIT_AFTER_LOSS_S):
                    if self.node:
                        self._is_lost(error)
                    if await self._hangs(process):
                        return f"{self.name} hung: {error!r}"
        return f"{self.name} {process.how_it_ended}"

    async def _check(self) -> None:
        self._is_found((await self.ask(BASICS, CHECK_TIMEOUT_S)).worker.generation)

    async def _hangs(self, process: RunningWorker) -> bool:
        """Whether a worker that did not answer runs, by its host, and still does not answer.

        On a node it is asked once more: the network may have been cut, and be back.
        """
        if not (self.node and await self._host.sees(process)):
            return not self.node
        try:
            await self._check()
        except (OSError, ProtocolViolation):
            return True
        return False

    def _is_lost(self, error: Exception) -> None:
        """Note that the worker cannot be reached, on a node that may be cut off. It may go on; nothing waits for it."""
        if self.phase == "ready":
            log.warning("%(worker)s cannot be reached: %(error)r", {"worker": self.name, "error": error})
            self.phase, self.applied, self._sent = "lost", None, None
            self.last_error = f"{self.name} cannot be reached: {error!r}"
            self._on_change()

    def _is_found(self, generation: int) -> None:
        """Note that the worker answers. If it was lost, or restarted by its host, it first gets the newest snapshot."""
        is_behind = self.applied is not None and generation < self.applied.generation
        if self.phase == "lost" or (self.phase == "ready" and is_behind):
            log.info("%(worker)s can be reached again", {"worker": self.name})
            self.phase, self.last_error, self.applied, self._sent = "ready", None, None, None
            self._begin_to_apply()
            self._on_change()

    def _tells_nothing(self, error: Exception) -> bool:
        """Whether an error says nothing about the worker: we lack descriptors, or its host cannot be asked."""
        return is_own_shortage(error) or (isinstance(error, FileNotFoundError) and self._host.is_away)

    def _begin_to_apply(self) -> None:
        # Another registry gave the worker a higher generation; the rollout will push a generation above that.
        if self._snapshot is None or self._snapshot.generation <= self.found_generation:
            return
        newest = self._snapshot, self._tls, self._is_stopping
        is_sent = self._sent is not None and all(now is then for now, then in zip(newest, self._sent))
        # The newest snapshot is not lost at the bound: this runs again when an earlier reply has come.
        if not is_sent and len(self._applying) < MAX_APPLYING:
            self._sent = newest
            task = asyncio.get_running_loop().create_task(self._apply(*newest))
            self._applying.add(task)
            task.add_done_callback(self._has_ended_to_apply)

    def _has_ended_to_apply(self, task: "asyncio.Task[None]") -> None:
        self._applying.discard(task)
        if self.phase == "ready":
            self._begin_to_apply()

    async def _apply(self, snapshot: Snapshot, tls: TlsMaterial | None, is_stopping: bool) -> None:
        process = self.process
        message = self._message(snapshot, tls, is_stopping)
        try:
            if process is not None:
                command = message.command
                told = command.snapshot if isinstance(command, commands.Apply) else command.difference
                codes = (application.selection.code for application in told.applications)
                await self._host.provide(process, filter(None, codes))
            reply = await self.ask(message.command, APPLY_TIMEOUT_S, message.body)
        except commands.CommandRefused as error:
            # It obeys a later epoch: the fault is ours, and replacing its process would not help.
            log.error("%(worker)s refuses snapshots of this server: %(error)s", {"worker": self.name, "error": error})
            self.last_error = str(error)
            return
        except (OSError, ClipperError) as error:
            tells_nothing = self._tells_nothing(error)
            if process is None or await process.has_exited_within(EXIT_AFTER_LOSS_S):
                return
            # It is not the worker's fault that its host lacks an artifact, or that it cannot be reached.
            is_of_host = isinstance(error, ClipperError) and not isinstance(error, ProtocolViolation)
            if tells_nothing or is_of_host or not await self._hangs(process):
                log.warning(
                    "%(worker)s could not be sent a snapshot, which is tried again: %(error)s",
                    {"worker": self.name, "error": error},
                )
                self._sent = None
            else:
                self._killed_because = f"{self.name} did not take a snapshot: {error!r}"
                process.kill()
            return
        if process is not self.process or self.phase == "lost":
            return  # the reply is from a process that was replaced since, or that gets the newest once it is found
        if reply.needs_whole and not message.is_whole:
            self.applied = reply
            self._sent = None  # the whole snapshot is sent next, since the one in force is no base
        elif self.applied is None or reply.generation >= self.applied.generation:
            self.applied, self._told = reply, self.instance
            self._on_change()

    def _message(self, snapshot: Snapshot, tls: TlsMaterial | None, is_stopping: bool) -> ApplyMessage:
        if not self._knows_records:
            command = commands.Apply(without_records(snapshot), tls, is_stopping)
            return ApplyMessage(command, commands.encode(command))
        applied = self.applied
        base = None if applied is None or applied.needs_whole else applied.generation
        return self._messages.make(snapshot, base, tls, is_stopping)
