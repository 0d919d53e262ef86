"""Brings a container into service: dials it until it answers, then warms it up."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from clipper.base.processes import proc
from clipper.errors import ContainerFailed, ProtocolViolation, RequestError
from clipper.model.protocol.messages import Welcome
from clipper.supervisor.managers import logs
from clipper.supervisor.managers.launcher import Container, ContainerNote
from clipper.supervisor.managers.probe import Caller
from clipper.supervisor.managers.reconcile.plan import Slot, StartTime
from clipper.supervisor.managers.warm_up import Sample, SampleSource, warm_up

log = logging.getLogger(__name__)

# How often to dial a container that is still loading its model.
DIAL_EVERY_S = 0.02
# The share of its start timeout that a container may take for rows that Clipper made: a model that computes for ever on
# zeros is started again without them, before whoever deploys it has waited for two start timeouts.
MADE_SHARE = 0.25
# A container that has accepted a connection only has to answer HELLO. A model that holds the interpreter delays that.
HANDSHAKE_TIMEOUT_S = 5.0
# A process whose connection breaks is most likely exiting, and how it exits says more.
EXIT_AFTER_LOSS_S = 1.0
LOG_TAIL_LINES = 20
# A container that says why it ends begins its last line with this.
SAYS_WHY = "clipper: "


@dataclass(eq=False)
class BringUp:
    """The way of one container into service, in ``_timeout_s``, or longer while it computes: see ``StartTime``. A step
    that fails raises ``ContainerFailed`` with the log's last lines. ``warm_up_rows``: rows of the last warm-up batch; 0
    if there was no batch, or the model refused the given sample."""

    _note: ContainerNote
    _container: Container
    _log_path: Path
    _log_start_bytes: int
    _timeout_s: float

    def __post_init__(self) -> None:
        self.warm_up_rows = 0
        self._time = StartTime(asyncio.get_running_loop().time(), self._timeout_s)

    async def answering(self) -> Caller:
        """Dial until it answers HELLO, and check that it is the right model."""
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
                # It does not listen yet. If it never will, it exits or its time is over.
                if self._is_too_late(loop.time()):
                    raise await self._failed(f"was not ready {self._in_time}") from None
            await asyncio.sleep(DIAL_EVERY_S)
        raise await self._failed(f"{self._container.how_it_ended} before it was ready")

    async def warm_up(self, welcome: Welcome, samples: SampleSource) -> None:
        """Let it evaluate a sample, if there is one. A failure on a sample that did not come with the deployment is
        only logged. If a sample kills the container, ``warm_up_rows`` says so, and the next start sends fewer rows; or
        none, if a row that did not come with the deployment takes too long."""
        now_s, time = asyncio.get_running_loop().time(), self._time
        # A model that took long to load may take long to warm up, on the same busy machine.
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
                # It still computes on them, and no query would be answered meanwhile.
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
        if sample.origin == "given":
            self.warm_up_rows = 0
            raise ContainerFailed(f"container {self._note.slot} failed on its sample: {failure}")
        # Some queries fail, and the sample came from one of them. The model is warm all the same.
        if sample.origin == "remembered":
            log.warning(
                "%(replica)s failed on a remembered sample: %(error)s", {**self._note.log_fields, "error": failure}
            )
        else:
            log.info(
                "%(replica)s failed on a row that Clipper made, which says nothing against it: %(error)s",
                {**self._note.log_fields, "error": failure},
            )

    def _is_too_late(self, now_s: float) -> bool:
        if not self._time.has_to_look(now_s):
            return False
        # One that was ready before has nothing to load, and the process ids of another machine are others' here.
        pid = None if self._note.ready or self._container.node is not None else self._container.pid
        return self._time.is_over(now_s, None if pid is None else proc.session_computed_s(pid))

    @property
    def _in_time(self) -> str:
        if self._note.ready:
            return f"within {self._timeout_s:g} s, though the earlier server had seen it ready"
        longer = ", and longer, as it computed" if self._time.is_extended else ""
        return (
            f"within its start_timeout_s of {self._timeout_s:g} s{longer}: raise it by --start-timeout, or try again, "
            "since a first start also reads the framework's files from the disk"
        )

    async def _failure_on(self, sample: Sample, welcome: Welcome) -> str | None:
        container = self._container

        def on_batch(rows: int) -> None:
            self.warm_up_rows = rows

        try:
            return await warm_up(container.address, welcome, sample, on_batch)
        except ProtocolViolation as error:
            raise await self._failed(f"does not speak the container protocol: {error}") from error
        except OSError as error:
            if await container.has_exited_within(EXIT_AFTER_LOSS_S):
                raise await self._failed(f"{container.how_it_ended} over the warm-up sample") from error
            raise await self._failed(f"closed its connection over the warm-up sample: {error}") from error

    async def _failed(self, what: str) -> ContainerFailed:
        await self._container.save_log()
        found = logs.tail(self._log_path, LOG_TAIL_LINES, self._log_start_bytes)
        lines = [text for line in found for text in logs.in_text(line)][-LOG_TAIL_LINES:]
        why = ""
        if lines:
            said = lines[-1].startswith(SAYS_WHY)
            why = f": {lines[-1].removeprefix(SAYS_WHY)}" if said else f"; its log ends with: {lines[-1]}"
        return ContainerFailed(f"container {self._note.slot} {what}{why}", lines)
