"""Policies and losses of users' own: tried in a process each, then made on threads under a watch.

So one that hangs holds up nobody else. One that hangs only here, and holds the interpreter's lock, takes the worker
with it: the supervisor ends that, and the worker in its place finds in the notes what it was, and leaves it out.
"""

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import msgspec

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import InvalidArgument, Unavailable
from clipper.selection.import_notes import ImportNotes
from clipper.selection.learning.losses import Loss
from clipper.selection.policies.by_name import make_loss, make_policy, runs_own_code
from clipper.selection.policies.policy import Policy
from clipper.selection.trial import Verdict
from clipper.settings.application import Selection

log = logging.getLogger(__name__)

# What is being made after this goes on, and its application alone waits for it: with the time that replicas may take to
# be dialled, a snapshot is still answered before the supervisor takes the worker for hung.
WAIT_S = 5.0
# What comes after one that hangs is waited for so long at least: most modules are imported in some milliseconds.
LEAST_WAIT_S = 0.2
# Each is a thread that nobody can end; more than this many mean that somebody keeps trying.
MAX_HANGING = 16
# What could not be tried, or took too long on a machine that may have been busy, is tried again after this: a trial
# that hangs ends after 20 s.
RETRY_S = 60.0


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
    """The making of what one application names.

    Attributes:
        problem: why it is not made, as long as ``made`` is None.
        told: once it is known whether it can be made, or that this may take long.
        ended: it is made, or cannot be.
        is_late: somebody has waited for it in vain.
        task: what makes it.
    """

    def __init__(self, key: str, application: ApplicationSnapshot) -> None:
        self.key = key
        self.application = application
        self.made: Made | None = None
        self.problem = f"policy {application.selection.policy} is still being tried"
        self.told = asyncio.Event()
        self.ended = asyncio.Event()
        self.is_late = False
        self.task: asyncio.Task[None] | None = None

    def end(self, made: Made | None, problem: str) -> None:
        self.made, self.problem = made, problem
        self.ended.set()
        self.told.set()


class OwnCode:
    """What the applications of a worker have made, or are making.

    Clipper's own policies are made where they are needed; all others here.
    """

    def __init__(
        self,
        on_late: Callable[[str], None],
        try_out: Callable[[Selection], Awaitable[Verdict]],
        notes: ImportNotes,
        wait_s: float = WAIT_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """
        Args:
            on_late: gets the name of an application whose code is there, or has failed, after it was waited for.
            try_out: tells whether a selection can be made in a process of its own, or raises Unavailable.
        """
        self._on_late = on_late
        self._try_out = try_out
        self._notes = notes
        self._wait_s = wait_s
        self._retry_s = retry_s
        self._attempts: dict[str, _Attempt] = {}
        self._trials: dict[bytes, asyncio.Task[Verdict]] = {}
        self._importing: set[_Attempt] = set()
        # Two that are imported at once could get each other's modules, if these have one name.
        self._turn = asyncio.Lock()

    async def prepare(self, applications: Iterable[ApplicationSnapshot]) -> None:
        """Make what is new among them; return when that is done, or is taking too long."""
        deadline_s = asyncio.get_running_loop().time() + self._wait_s
        wanted = {one.name: one for one in applications if runs_own_code(one.selection.policy, one.selection.loss)}
        keys = {name: _key(application) for name, application in wanted.items()}
        for name, attempt in list(self._attempts.items()):
            if keys.get(name) != attempt.key:
                self._forget(name)
        self._notes.keep(keys.values())
        shared = {_trial_key(one.selection) for one in wanted.values()}
        self._trials = {key: trial for key, trial in self._trials.items() if key in shared or not trial.done()}
        for name, application in wanted.items():
            if name not in self._attempts:
                attempt = self._attempts[name] = _Attempt(keys[name], application)
                attempt.task = asyncio.create_task(self._make(attempt, deadline_s))
        for attempt in list(self._attempts.values()):
            if not attempt.is_late:
                await self._watch(attempt, deadline_s)

    def made(self, application: ApplicationSnapshot) -> Made:
        """
        Raises:
            InvalidArgument: it cannot be made, or is not there yet.
        """
        chosen = application.selection
        if not runs_own_code(chosen.policy, chosen.loss):
            return make(application)
        attempt = self._attempts.get(application.name)
        if attempt is None or attempt.key != _key(application):
            raise InvalidArgument(
                f"policy {chosen.policy} is not made: {len(self._importing)} others hang in this worker"
            )
        if attempt.made is None:
            raise InvalidArgument(attempt.problem)
        return attempt.made

    async def _make(self, attempt: _Attempt, deadline_s: float) -> None:
        policy = attempt.application.selection.policy
        if self._notes.was_fatal(attempt.key):
            log.error("policy %s is left out: the worker before this one ended while it imported it", policy)
            attempt.end(
                None,
                f"policy {policy} is left out, since a worker hung or ended while it was imported: mend it and give it "
                "anew with clipper app update, or start the server again to have it tried once more",
            )
            return
        verdict = await self._verdict(attempt.application.selection)
        while verdict.problem is not None and not verdict.is_final:
            log.warning("%s: it is tried again in %g s", verdict.problem, self._retry_s)
            attempt.problem = verdict.problem
            attempt.told.set()
            self._tell(attempt)
            await asyncio.sleep(self._retry_s)
            verdict = await self._verdict(attempt.application.selection)
        if verdict.problem is not None:
            attempt.end(None, verdict.problem)
            self._tell(attempt)
            return
        async with self._turn:
            if len(self._importing) >= MAX_HANGING:
                attempt.end(None, f"policy {policy} is not made: {len(self._importing)} others hang in this worker")
                self._tell(attempt)
                del self._attempts[attempt.application.name]  # the next snapshot is another chance
            else:
                await self._import(attempt, deadline_s)

    async def _verdict(self, selection: Selection) -> Verdict:
        """Of the trial that all share whose code is the same; one that failed is not kept."""
        key = _trial_key(selection)
        trial = self._trials.get(key)
        if trial is None:
            trial = self._trials[key] = asyncio.create_task(self._tried(selection))
        # Who waits may be told not to, and others wait as well.
        verdict = await asyncio.shield(trial)
        if verdict.problem is not None and self._trials.get(key) is trial:
            del self._trials[key]
        return verdict

    async def _tried(self, selection: Selection) -> Verdict:
        try:
            return await self._try_out(selection)
        except (Unavailable, OSError) as error:  # for want of processes, descriptors or disk
            return Verdict(f"policy {selection.policy} cannot be tried: {error}", is_final=False)

    async def _import(self, attempt: _Attempt, deadline_s: float) -> None:
        """Make it on a thread. Others wait for a while; a worker that drains does not: the thread is a daemon."""
        loop, key = asyncio.get_running_loop(), attempt.key
        policy = attempt.application.selection.policy
        attempt.problem = f"policy {policy} is still being imported and made"

        def end(made: Made | None, problem: str) -> None:
            self._notes.end(key)
            self._importing.discard(attempt)
            attempt.end(made, problem)
            self._tell(attempt)

        def run() -> None:
            made, problem = None, f"policy {policy} ended the thread that made it"
            try:
                made = make(attempt.application)
            except InvalidArgument as error:
                problem = str(error)
            except KeyboardInterrupt:  # one that its code raises: nobody interrupts this thread
                problem += ": KeyboardInterrupt"
            finally:
                with contextlib.suppress(RuntimeError):  # the worker has ended meanwhile
                    loop.call_soon_threadsafe(end, made, problem)

        self._notes.begin(key)
        self._importing.add(attempt)
        threading.Thread(target=run, name="own-code", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(max(deadline_s, loop.time() + LEAST_WAIT_S)):
                await attempt.ended.wait()
        if not attempt.ended.is_set():
            log.warning("%s: its application answers policy_error until it is", attempt.problem)

    async def _watch(self, attempt: _Attempt, deadline_s: float) -> None:
        until_s = max(deadline_s, asyncio.get_running_loop().time() + LEAST_WAIT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await attempt.told.wait()
        attempt.is_late = not attempt.ended.is_set()

    def _tell(self, attempt: _Attempt) -> None:
        name = attempt.application.name
        if attempt.is_late and self._attempts.get(name) is attempt:
            self._on_late(name)

    def _forget(self, name: str) -> None:
        """A thread cannot be ended; all that comes before it can."""
        attempt = self._attempts.pop(name)
        if attempt.task is not None:
            attempt.task.cancel()


def _key(application: ApplicationSnapshot) -> str:
    """Another application of the same name makes its own: a user's policy may keep what it should not."""
    return hashlib.sha256(msgspec.json.encode((application.id, application.selection))).hexdigest()


def _trial_key(selection: Selection) -> bytes:
    """The artifact's folder is named by its digest."""
    what = (selection.code, selection.policy, selection.parameters, selection.loss, selection.loss_parameters)
    return msgspec.json.encode(what)
