"""Policies and losses of users' own: made on threads, under a watch, so that one that hangs holds up nobody else."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from clipper.errors import InvalidArgument
from clipper.selection.learning.losses import Loss
from clipper.selection.policies.policy import Policy
from clipper.selection.policies.registry import make_loss, make_policy, runs_own_code
from clipper.snapshot import ApplicationSnapshot

log = logging.getLogger(__name__)

# What is being made after this goes on, and its application alone waits for it: with the time that replicas may take to
# be dialled, a snapshot is still answered before the supervisor takes the worker for hung.
WAIT_S = 5.0
# What comes after one that hangs is waited for so long at least: most modules are imported in some milliseconds.
LEAST_WAIT_S = 0.2
# Each is a thread that nobody can end; more than this many mean that somebody keeps trying.
MAX_HANGING = 16


@dataclass(frozen=True, slots=True)
class Made:
    """What an application selects and learns by."""

    policy: Policy
    loss: Loss


def make(application: ApplicationSnapshot) -> Made:
    """Make what an application names, here and now.

    Raises:
        InvalidArgument: it cannot be made.
    """
    chosen = application.selection
    return Made(
        make_policy(chosen.policy, chosen.parameters, chosen.code),
        make_loss(chosen.loss, chosen.loss_parameters, chosen.code),
    )


class _Attempt:
    """One making, on a thread of its own. It is a daemon: a worker that drains does not wait for it."""

    def __init__(self, application: ApplicationSnapshot, on_end: Callable[[], None]) -> None:
        self.made: Made | None = None
        self.problem = f"policy {application.selection.policy} is still being imported and made"
        self.ended = asyncio.Event()
        # Whether somebody has waited for it in vain.
        self.is_late = False
        self._application = application
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="own-code", daemon=True).start()

    def _run(self) -> None:
        made, problem = None, f"policy {self._application.selection.policy} ended the thread that made it"
        try:
            made = make(self._application)
        except InvalidArgument as error:
            problem = str(error)
        except KeyboardInterrupt:  # one that its code raises: nobody interrupts this thread
            problem += ": KeyboardInterrupt"
        finally:
            with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile
                self._loop.call_soon_threadsafe(self._end, made, problem)

    def _end(self, made: Made | None, problem: str) -> None:
        self.made, self.problem = made, problem
        self.ended.set()
        if self.is_late:
            self._on_end()


class OwnCode:
    """What the applications of a worker have made, or are making.

    Clipper's own policies are made where they are needed; all others here.
    """

    def __init__(self, on_late: Callable[[str], None], wait_s: float = WAIT_S) -> None:
        """``on_late`` gets the name of an application whose code is there after all, or has failed after all."""
        self._on_late = on_late
        self._wait_s = wait_s
        self._attempts: dict[str, tuple[bytes, _Attempt]] = {}
        self._hanging: set[_Attempt] = set()

    async def prepare(self, applications: Iterable[ApplicationSnapshot]) -> None:
        """Make what is new among them, one after another; return when that is done, or is taking too long."""
        deadline_s = asyncio.get_running_loop().time() + self._wait_s
        wanted = {one.name: one for one in applications if runs_own_code(one.selection.policy, one.selection.loss)}
        self._attempts = {name: known for name, known in self._attempts.items() if name in wanted}
        for name, application in wanted.items():
            attempt = self._begin(name, application)
            if attempt is not None and not attempt.is_late:
                await self._watch(attempt, deadline_s)

    def made(self, application: ApplicationSnapshot) -> Made:
        """
        Raises:
            InvalidArgument: it cannot be made, or is not there yet.
        """
        chosen = application.selection
        if not runs_own_code(chosen.policy, chosen.loss):
            return make(application)
        key, attempt = self._attempts.get(application.name, (b"", None))
        if attempt is None or key != _key(application):
            raise InvalidArgument(
                f"policy {chosen.policy} is not made: {len(self._hanging)} others hang in this worker"
            )
        if attempt.made is None:
            raise InvalidArgument(attempt.problem)
        return attempt.made

    def _begin(self, name: str, application: ApplicationSnapshot) -> _Attempt | None:
        """The attempt at what an application names now; None if there are too many that hang."""
        key = _key(application)
        known, attempt = self._attempts.get(name, (b"", None))
        if attempt is not None and known == key:
            return attempt
        if len(self._hanging) >= MAX_HANGING:
            self._attempts.pop(name, None)
            return None
        attempt = _Attempt(application, lambda: self._has_ended_late(name, key))
        self._attempts[name] = key, attempt
        return attempt

    async def _watch(self, attempt: _Attempt, deadline_s: float) -> None:
        until_s = max(deadline_s, asyncio.get_running_loop().time() + LEAST_WAIT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await attempt.ended.wait()
        if not attempt.ended.is_set():
            log.warning("%s: its application answers policy_error until it is", attempt.problem)
            attempt.is_late = True
            self._hanging.add(attempt)

    def _has_ended_late(self, name: str, key: bytes) -> None:
        self._hanging = {attempt for attempt in self._hanging if not attempt.ended.is_set()}
        known, _ = self._attempts.get(name, (b"", None))
        if known == key:
            self._on_late(name)


def _key(application: ApplicationSnapshot) -> bytes:
    """Another application of the same name makes its own: a user's policy may keep what it should not."""
    return msgspec.json.encode((application.id, application.selection))
