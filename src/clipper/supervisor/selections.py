"""How an application is to select among its models: from what an operator asks for, checked."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from clipper.errors import InvalidArgument, Unavailable
from clipper.management.schemas import ApplicationChange, Configured, NewApplication
from clipper.selection.check import TIMEOUT_S
from clipper.selection.learning.losses import LOSSES
from clipper.selection.learning.parameters import check_number
from clipper.selection.policies.registry import POLICIES, make_loss, make_policy
from clipper.snapshot import Selection

# Feedback on a query that was longer ago would be on a model that is no longer there. Ids of feedback are kept as long.
MAX_FEEDBACK_TTL_S = 7 * 24 * 3600.0
# A check ends itself; this much more is for starting Python on a busy machine.
CHECK_TIMEOUT_S = TIMEOUT_S + 10.0
# Each is a Python process; further ones wait.
MAX_CHECKS = 4


def new_selection(new: NewApplication) -> Selection:
    policy, loss = _configured(new.policy), _configured(new.loss)
    return Selection(
        policy=policy.name,
        parameters=policy.parameters,
        loss=loss.name,
        loss_parameters=loss.parameters,
        half_life=new.half_life,
        prior_weight=new.prior_weight,
        confidence_threshold=new.confidence_threshold,
        feedback_ttl_s=new.feedback_ttl_s,
    )


def changed_selection(selection: Selection, change: ApplicationChange) -> Selection:
    if change.policy is not UNSET:
        policy = _configured(change.policy)
        selection = replace(selection, policy=policy.name, parameters=policy.parameters)
    if change.loss is not UNSET:
        loss = _configured(change.loss)
        selection = replace(selection, loss=loss.name, loss_parameters=loss.parameters)
    numbers = {
        "half_life": change.half_life,
        "prior_weight": change.prior_weight,
        "confidence_threshold": change.confidence_threshold,
        "feedback_ttl_s": change.feedback_ttl_s,
    }
    return replace(selection, **{name: number for name, number in numbers.items() if number is not UNSET})


def names_code(selection: Selection) -> bool:
    """Whether its policy or loss is the user's own, ``module:attribute``."""
    return ":" in selection.policy or ":" in selection.loss


class SelectionChecker:
    """Checks selections. Code that is not Clipper's own is run in a process that ends with the check.

    A look at its source, as packaging takes it, would not tell whether the module can be imported here, whether the
    class is a policy, or whether it takes its parameters.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """``environment`` and ``folder``: of the query workers, so that what can be made here can be made there."""
        self._environment = environment
        self._folder = folder
        self._slots = asyncio.Semaphore(MAX_CHECKS)

    async def check(self, selection: Selection) -> None:
        """
        Raises:
            InvalidArgument: a value is outside its range, or the policy or loss cannot be made.
            Unavailable: the process for that cannot be started.
        """
        _check_numbers(selection)
        if selection.policy in POLICIES and selection.loss in LOSSES:
            make_policy(selection.policy, selection.parameters)
            make_loss(selection.loss, selection.loss_parameters)
            return
        async with self._slots:
            await self._check_code(selection)

    async def _check_code(self, selection: Selection) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "clipper.selection.check",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"the policy cannot be checked: no process can be started for it: {error}") from error
        verdict = await _verdict(process, msgspec.json.encode(selection))
        if process.returncode == 1:
            raise InvalidArgument(verdict)
        if process.returncode != 0:
            raise InvalidArgument(f"policy {selection.policy}, loss {selection.loss}: {_how_it_ended(process)}")


def _configured(given: str | Configured) -> Configured:
    return Configured(given) if isinstance(given, str) else given


def _check_numbers(selection: Selection) -> None:
    if selection.half_life is not None:
        check_number("half_life", selection.half_life, 1)
    check_number("prior_weight", selection.prior_weight, 0)
    if selection.confidence_threshold is not None:
        check_number("confidence_threshold", selection.confidence_threshold, 0, 1)
    check_number("feedback_ttl_s", selection.feedback_ttl_s, 0, MAX_FEEDBACK_TTL_S)


async def _verdict(process: asyncio.subprocess.Process, question: bytes) -> str:
    """What it says; when this returns, it is gone."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            verdict, _ = await process.communicate(question)
            return verdict.decode(errors="replace")
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            # Its group: it leads one, and may have started others.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _how_it_ended(process: asyncio.subprocess.Process) -> str:
    if process.returncode in (-signal.SIGALRM, -signal.SIGKILL):
        return f"its code was not imported and made within {TIMEOUT_S} s"
    return f"importing its code ended the process, with status {process.returncode}"
