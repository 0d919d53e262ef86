"""How an application is to select among its models: from what an operator asks for, checked."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from clipper.errors import InvalidArgument, Unavailable
from clipper.management.schemas import ApplicationChange, Configured, NewApplication
from clipper.managers import limits
from clipper.managers.bounds.excess import Bounds
from clipper.managers.enter import entering
from clipper.managers.processes import MARK, ProcessFolder, kill_marked
from clipper.managers.usage import UsageKeeper
from clipper.run_as import RunAs
from clipper.selection.check import TIMEOUT_S
from clipper.selection.learning.parameters import check_number
from clipper.selection.policies.query_view import MAX_FEATURES
from clipper.selection.policies.registry import POLICIES, default_half_life, make_loss, make_policy, runs_own_code
from clipper.snapshot import Selection
from clipper.types import InputType

# Feedback on a query that was longer ago would be on a model that is no longer there. Ids of feedback are kept as long.
MAX_FEEDBACK_TTL_S = 7 * 24 * 3600.0
# More feedback than comes in years; who wants more wants no half-life.
MAX_OBSERVATIONS = 10**9
# A check ends itself; this much more is for starting Python on a busy machine.
CHECK_TIMEOUT_S = TIMEOUT_S + 10.0
# Each is a Python process; further ones wait.
MAX_CHECKS = 4
# Importing the largest frameworks takes about half of this.
MAX_CHECK_MEMORY_BYTES = 2 * 1024**3
# Of what it says; its verdict is far shorter, and what else it writes nobody reads.
MAX_SAID_BYTES = 16 * 1024


def new_selection(new: NewApplication) -> Selection:
    policy, loss = _configured(new.policy), _configured(new.loss)
    return Selection(
        policy=policy.name,
        parameters=policy.parameters,
        loss=loss.name,
        loss_parameters=loss.parameters,
        half_life=default_half_life(policy.name) if new.half_life is UNSET else new.half_life,
        prior_weight=new.prior_weight,
        inherit=new.inherit,
        wait=new.wait,
        confidence_threshold=new.confidence_threshold,
        feedback_ttl_s=new.feedback_ttl_s,
        log_decisions=new.log_decisions,
        features=new.features,
    )


def changed_selection(selection: Selection, change: ApplicationChange) -> Selection:
    if change.policy is not UNSET:
        policy = _configured(change.policy)
        if selection.half_life == default_half_life(selection.policy):  # nobody has set another
            selection = replace(selection, half_life=default_half_life(policy.name))
        selection = replace(selection, policy=policy.name, parameters=policy.parameters)
    if change.loss is not UNSET:
        loss = _configured(change.loss)
        selection = replace(selection, loss=loss.name, loss_parameters=loss.parameters)
    others = {
        "half_life": change.half_life,
        "prior_weight": change.prior_weight,
        "inherit": change.inherit,
        "wait": change.wait,
        "confidence_threshold": change.confidence_threshold,
        "feedback_ttl_s": change.feedback_ttl_s,
        "log_decisions": change.log_decisions,
        "features": change.features,
    }
    return replace(selection, **{name: value for name, value in others.items() if value is not UNSET})


def names_code(selection: Selection) -> bool:
    """Whether its policy or loss is the user's own, ``module:attribute``."""
    return ":" in selection.policy or ":" in selection.loss


class SelectionChecker:
    """Checks selections. Code that is not Clipper's own is run in a process that ends with the check.

    A look at its source, as packaging takes it, would not tell whether the module can be imported here, whether the
    class is a policy, or whether it takes its parameters.
    """

    def __init__(self, processes: ProcessFolder, scratch: Path, run_as: RunAs | None = None) -> None:
        """``processes``: of the workers, so that what is made here can be made there; ``scratch``: of containers.

        ``run_as``: the user that containers run as, and so does this.
        """
        self._processes = processes
        self._scratch = scratch
        self._run_as = run_as
        self._numbers = itertools.count()
        self._slots = asyncio.Semaphore(MAX_CHECKS)

    async def check(self, selection: Selection) -> None:
        """
        Raises:
            InvalidArgument: a value is outside its range, or the policy or loss cannot be made.
            Unavailable: the process for that cannot be started.
        """
        check_numbers(selection)
        if not runs_own_code(selection.policy, selection.loss):
            make_policy(selection.policy, selection.parameters)
            make_loss(selection.loss, selection.loss_parameters)
            return
        async with self._slots:
            await self._check_code(selection)

    async def _check_code(self, selection: Selection) -> None:
        name = f"selection-check-{next(self._numbers)}"
        folder = self._scratch / name
        # By the mark in its environment whatever it forks ends with the check, wherever that moved itself.
        environment = self._processes.environment(name) | {"TMPDIR": str(folder)}
        trial = _Trial(environment[MARK], folder)
        keeper = asyncio.create_task(UsageKeeper(lambda: [trial]).run())
        try:
            await self._try(selection, trial, environment)
        finally:
            keeper.cancel()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _try(self, selection: Selection, trial: "_Trial", environment: Mapping[str, str]) -> None:
        try:
            trial.folder.mkdir(parents=True, exist_ok=True)
            # Nothing in the folder that it is started in is imported.
            argv = [sys.executable, "-P", "-m", "clipper.selection.check"]
            if self._run_as is not None:
                os.chown(trial.folder, self._run_as.uid, self._run_as.gid)
                environment = {**environment, "HOME": str(trial.folder)}  # ours is closed to it
                argv = entering(self._run_as, MAX_CHECK_MEMORY_BYTES, None, argv)
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                cwd=trial.folder,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"the policy cannot be checked: no process can be started for it: {error}") from error
        if self._run_as is None:
            limits.apply(process.pid, MAX_CHECK_MEMORY_BYTES, None)
        verdict = await _verdict(process, msgspec.json.encode(selection), trial.mark)
        if trial.reason is not None:
            raise InvalidArgument(f"policy {selection.policy}, loss {selection.loss}: their code {trial.reason}")
        if process.returncode == 1:
            raise InvalidArgument(verdict)
        if process.returncode != 0:
            raise InvalidArgument(f"policy {selection.policy}, loss {selection.loss}: {_how_it_ended(process)}")


class _Trial:
    """What a keeper of containers knows of a check; see ``managers.usage.Bounded``.

    Attributes:
        reason: why it was ended; None if it was not.
    """

    def __init__(self, mark: str, folder: Path) -> None:
        self.mark = mark
        self.folder = folder
        self.bounds = Bounds(MAX_CHECK_MEMORY_BYTES)
        self.reason: str | None = None

    def kill(self, reason: str) -> None:
        self.reason = reason
        kill_marked(self.mark.__eq__)


def _configured(given: str | Configured) -> Configured:
    return Configured(given) if isinstance(given, str) else given


def check_numbers(selection: Selection) -> None:
    """
    Raises:
        InvalidArgument: one is outside its range.
    """
    if selection.half_life is not None:
        check_number("half_life", selection.half_life, 1, MAX_OBSERVATIONS)
    check_number("prior_weight", selection.prior_weight, 0, MAX_OBSERVATIONS)
    check_number("inherit", selection.inherit, 0, 1)
    if selection.confidence_threshold is not None:
        check_number("confidence_threshold", selection.confidence_threshold, 0, 1)
    check_number("feedback_ttl_s", selection.feedback_ttl_s, 0, MAX_FEEDBACK_TTL_S)
    check_number("log_decisions", selection.log_decisions, 0, 1)
    if isinstance(selection.features, int):
        check_number("features", selection.features, 1, MAX_FEATURES)


def check_features(selection: Selection, input_type: InputType) -> None:
    """
    Raises:
        InvalidArgument: the policy goes by features that queries do not bring, or their inputs cannot be them.
    """
    if selection.features is None and selection.policy in POLICIES and POLICIES[selection.policy].needs_features:
        raise InvalidArgument(
            f"policy {selection.policy} goes by features: say how many each query brings, features N, or that its "
            "input is them, features input"
        )
    if selection.features != "input":
        return
    size_bytes = input_type.row_bytes
    count = None if size_bytes is None else size_bytes // input_type.dtype.size_bytes
    if count is None or not 1 <= count <= MAX_FEATURES:
        raise InvalidArgument(
            f"inputs of {input_type} cannot be features: expected numbers of a shape that fixes how many, at most "
            f"{MAX_FEATURES}, such as float64[8]; send others beside the input, features N"
        )


async def _verdict(process: asyncio.subprocess.Process, question: bytes, mark: str) -> str:
    """What it says; when this returns, it is gone with all that it forked."""
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            with contextlib.suppress(ConnectionError):  # it ended before it read all: its status tells
                process.stdin.write(question)
                await process.stdin.drain()
                process.stdin.close()
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Before the wait: what it forked may hold the other end of its output open.
        kill_marked(mark.__eq__)
        await process.wait()
    return (await process.stdout.read(MAX_SAID_BYTES)).decode(errors="replace")


def _how_it_ended(process: asyncio.subprocess.Process) -> str:
    if process.returncode in (-signal.SIGALRM, -signal.SIGKILL):
        return f"its code was not imported and made within {TIMEOUT_S} s"
    return f"importing its code ended the process, with status {process.returncode}"
