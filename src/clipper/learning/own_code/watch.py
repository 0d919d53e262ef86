"""Users' own policies and losses: tried in a process first, then made on threads under a watch.

Code that hangs holds up no other code. If it hangs only in the worker, and holds the interpreter's lock, it blocks the
whole worker: the supervisor ends the worker, and its replacement finds the culprit in the notes and leaves it out.
"""

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clipper.base.whole_files import write_whole
from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import InvalidArgument, Unavailable
from clipper.learning.mathematics.losses import Loss
from clipper.learning.own_code.trial import Verdict
from clipper.learning.policies.by_name import make_loss, make_policy, runs_own_code
from clipper.learning.policies.policy import Policy
from clipper.settings.application import Selection

log = logging.getLogger(__name__)

# After this time a snapshot no longer waits for code that is being made; only the code's application does. Together
# with the time to dial replicas, the snapshot is still answered before the supervisor considers the worker hung.
WAIT_S = 5.0
# A snapshot waits at least this long for code behind hanging code: most imports take some milliseconds.
LEAST_WAIT_S = 0.2
# Threads that hang and cannot be ended. More than this many mean that a user keeps trying.
MAX_HANGING = 16
# A trial that could not run, or took too long on a possibly busy machine, is repeated after this time; a trial that
# hangs ends after 20 s.
RETRY_S = 60.0


class ImportNotes:
    """Notes on imports, in a file that outlives its worker. A snapshot's applications bound its size."""

    def __init__(self, path: Path | None) -> None:
        """``path`` is the same for a worker and its replacement; None keeps no notes."""
        self._path = path
        self._fatal = set(_read(path)) if path is not None else set()
        self._begun: list[str] = []

    def was_fatal(self, key: str) -> bool:
        """Whether an earlier worker ended while it imported the code behind ``key``."""
        return key in self._fatal

    def begin(self, key: str) -> None:
        self._begun.append(key)
        self._write()

    def end(self, key: str) -> None:
        self._begun.remove(key)
        self._write()

    def keep(self, keys: Collection[str]) -> None:
        """Forget fatal code that is not among ``keys``."""
        if not self._fatal.issubset(keys):
            self._fatal.intersection_update(keys)
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            write_whole(self._path, [msgspec.json.encode([*self._fatal, *self._begun])])
        except OSError as error:  # import it nevertheless: hardly any import hangs
            log.warning(
                "cannot note which code is being imported in %(file)s: %(error)s", {"file": self._path, "error": error}
            )


def _read(path: Path) -> list[str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning(
            "cannot read which code was being imported from %(file)s: %(error)s", {"file": path, "error": error}
        )
        return []


@dataclass(frozen=True, slots=True)
class Made:
    """The policy and loss of an application."""

    policy: Policy
    loss: Loss


def make(application: ApplicationSnapshot) -> Made:
    """Make an application's policy and loss in this thread. Raises InvalidArgument if they cannot be made."""
    chosen = application.selection
    return Made(
        make_policy(chosen.policy, chosen.parameters, chosen.code),
        make_loss(chosen.loss, chosen.loss_parameters, chosen.code),
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An application with code of its own. ``trial_key``: see ``_trial_key``."""

    application: ApplicationSnapshot
    key: str
    trial_key: bytes


class _Attempt:
    """An attempt to make an application's policy and loss.

    Attributes:
        problem: why they are not made, while ``made`` is None.
        told: set once it is known whether they can be made, or that this may take long.
        ended: set once they are made, or cannot be made.
        is_late: whether a snapshot has stopped waiting for them.
        task: makes them.
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
    """Users' own policies and losses that a worker has made or is making. Clipper's own are made where needed."""

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
            on_late: called with the name of an application whose code has loaded or failed after the wait for it ended.
            try_out: tries in a process of its own whether a selection can be made; raises Unavailable if it cannot try.
        """
        self._on_late = on_late
        self._try_out = try_out
        self._notes = notes
        self._wait_s = wait_s
        self._retry_s = retry_s
        # The applications with code of their own, by name.
        self._wanted: dict[str, _Wanted] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._trials: dict[bytes, asyncio.Task[Verdict]] = {}
        self._importing: set[_Attempt] = set()
        # Two simultaneous imports could get each other's modules if these have equal names.
        self._turn = asyncio.Lock()

    async def prepare(self, applications: Iterable[ApplicationSnapshot], gone: Collection[str] | None = None) -> None:
        """Make new policies and losses of the applications; return when that is done, or takes too long.

        Args:
            applications: the applications that are new or may have changed.
            gone: the names of removed applications; None means all that are not among ``applications``.
        """
        deadline_s = asyncio.get_running_loop().time() + self._wait_s
        changed = {one.name: one for one in applications}
        for name in [name for name in self._wanted if name not in changed] if gone is None else gone:
            self._leave_out(name)
        for name, application in changed.items():
            if not runs_own_code(application.selection.policy, application.selection.loss):
                self._leave_out(name)
                continue
            known, key = self._wanted.get(name), _key(application)
            if known is None or known.key != key:
                self._leave_out(name)
                self._wanted[name] = _Wanted(application, key, _trial_key(application.selection))
        self._notes.keep({one.key for one in self._wanted.values()})
        shared = {one.trial_key for one in self._wanted.values()}
        self._trials = {key: trial for key, trial in self._trials.items() if key in shared or not trial.done()}
        for name, one in self._wanted.items():
            if name not in self._attempts:
                attempt = self._attempts[name] = _Attempt(one.key, one.application)
                attempt.task = asyncio.create_task(self._make(attempt, deadline_s))
        for attempt in list(self._attempts.values()):
            if not attempt.is_late and not attempt.ended.is_set():
                await self._watch(attempt, deadline_s)

    def made(self, application: ApplicationSnapshot) -> Made:
        """Return an application's policy and loss. Raises InvalidArgument if they cannot be made, or are not yet."""
        chosen = application.selection
        if not runs_own_code(chosen.policy, chosen.loss):
            return make(application)
        attempt = self._attempts.get(application.name)
        if attempt is None or attempt.key != _key(application):
            raise InvalidArgument(
                f"policy {chosen.policy} is not made: {len(self._importing)} other policies hang in this worker"
            )
        if attempt.made is None:
            raise InvalidArgument(attempt.problem)
        return attempt.made

    async def _make(self, attempt: _Attempt, deadline_s: float) -> None:
        policy = attempt.application.selection.policy
        if self._notes.was_fatal(attempt.key):
            log.error(
                "policy %(policy)s is left out: the previous worker ended while it imported the policy",
                {"application": attempt.application.name, "policy": policy},
            )
            attempt.end(
                None,
                f"policy {policy} is left out, since a worker hung or crashed while it imported the policy: fix it and "
                "send it again with clipper app update, or restart the server to try it once more",
            )
            return
        verdict = await self._verdict(attempt.application.selection)
        while verdict.problem is not None and not verdict.is_final:
            log.warning(
                "%(reason)s: trying again in %(wait_s)g s",
                {"application": attempt.application.name, "reason": verdict.problem, "wait_s": self._retry_s},
            )
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
                problem = f"policy {policy} is not made: {len(self._importing)} other policies hang in this worker"
                attempt.end(None, problem)
                self._tell(attempt)
                del self._attempts[attempt.application.name]  # the next snapshot tries again
            else:
                await self._import(attempt, deadline_s)

    async def _verdict(self, selection: Selection) -> Verdict:
        """Return the verdict of a trial that all selections with the same code share; a failed trial is not kept."""
        key = _trial_key(selection)
        trial = self._trials.get(key)
        if trial is None:
            trial = self._trials[key] = asyncio.create_task(self._tried(selection))
        # The caller may be cancelled while others wait for the same trial.
        verdict = await asyncio.shield(trial)
        if verdict.problem is not None and self._trials.get(key) is trial:
            del self._trials[key]
        return verdict

    async def _tried(self, selection: Selection) -> Verdict:
        try:
            return await self._try_out(selection)
        except (Unavailable, OSError) as error:  # no process, descriptor or disk space was left
            return Verdict(f"policy {selection.policy} cannot be tried: {error}", is_final=False)

    async def _import(self, attempt: _Attempt, deadline_s: float) -> None:
        """Make it on a thread, and wait for a while. The thread is a daemon, so a draining worker need not wait."""
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
            except KeyboardInterrupt:  # raised by the code itself: this thread is never interrupted
                problem += ": KeyboardInterrupt"
            finally:
                with contextlib.suppress(RuntimeError):  # the worker has ended in the meantime
                    loop.call_soon_threadsafe(end, made, problem)

        self._notes.begin(key)
        self._importing.add(attempt)
        try:
            threading.Thread(target=run, name="own-code", daemon=True).start()
        except RuntimeError as error:
            end(None, f"policy {policy} is not made, since no thread can be started for it: {error}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(max(deadline_s, loop.time() + LEAST_WAIT_S)):
                await attempt.ended.wait()
        if not attempt.ended.is_set():
            log.warning(
                "%(reason)s: until then its application answers policy_error",
                {"application": attempt.application.name, "reason": attempt.problem},
            )

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

    def _leave_out(self, name: str) -> None:
        """Forget an application's code. A running import cannot be stopped, but everything before it can."""
        self._wanted.pop(name, None)
        attempt = self._attempts.pop(name, None)
        if attempt is not None and attempt.task is not None:
            attempt.task.cancel()


def _key(application: ApplicationSnapshot) -> str:
    """Return a key that a new application of the same name does not share: a user's policy may keep state."""
    return hashlib.sha256(msgspec.json.encode((application.id, application.selection))).hexdigest()


def _trial_key(selection: Selection) -> bytes:
    """Return the key of a trial. Its code is identified by its folder, which is named by the artifact's digest."""
    what = (selection.code, selection.policy, selection.parameters, selection.loss, selection.loss_parameters)
    return msgspec.json.encode(what)
