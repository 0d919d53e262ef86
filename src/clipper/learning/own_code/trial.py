"""Tries users' own policies and losses in a process that is bounded like a container, and ends with all it forked.

Their source alone, which packaging reads, does not show whether a module can be imported here, whether a class is a
policy, whether it takes its parameters, or whether its import ever ends.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clipper.base.processes import limits
from clipper.base.processes.enter import entering
from clipper.base.processes.excess import Bounds
from clipper.base.processes.marks import MARK, kill_marked
from clipper.base.processes.usage import UsageKeeper
from clipper.base.run_as import RunAs
from clipper.base.trees import remove_tree
from clipper.errors import Unavailable
from clipper.learning.own_code.check import TIMEOUT_S
from clipper.settings.application import Selection

# A trial ends itself; this much more allows for starting Python on a busy machine.
TRIAL_TIMEOUT_S = TIMEOUT_S + 10.0
# Each trial is a Python process; further ones wait.
MAX_TRIALS = 4
# Importing the largest frameworks takes about half of this.
MAX_TRIAL_MEMORY_BYTES = 2 * 1024**3
# Bound of the output that is read. The verdict is far shorter.
MAX_SAID_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a trial.

    Attributes:
        problem: why the policy or the loss cannot be made; None if both can.
        is_final: False if another trial may succeed, for example on a less busy machine.
    """

    problem: str | None
    is_final: bool = True


class Trials:
    """Tries selections whose code is not Clipper's own."""

    def __init__(self, environment: Mapping[str, str], scratch: Path, name: str, run_as: RunAs | None = None) -> None:
        """
        Args:
            environment: the variables of the trials. They contain a process mark that begins with ``name``.
            scratch: folder for the trials' folders.
            name: the beginning of the trials' marks and folders.
            run_as: the user that containers and trials run as.
        """
        self._environment = environment
        self._scratch = scratch
        self._name = name
        self._run_as = run_as
        self._numbers = itertools.count()
        self._slots = asyncio.Semaphore(MAX_TRIALS)

    async def verdict(self, selection: Selection) -> Verdict:
        """Try a selection. When this returns, the process and all that it forked have ended. Raises Unavailable if the
        process cannot be started; OSError if no descriptor is left to search for what it forked.
        """
        async with self._slots:
            number = next(self._numbers)
            folder = self._scratch / f"{self._name}-{number}"
            # All processes that it forks have this mark in their environment, by which they are ended with the trial.
            environment = {
                **self._environment,
                MARK: f"{self._environment[MARK]}-{number}",
                "TMPDIR": str(folder),
            }
            trial = _Trial(environment[MARK], folder)
            keeper = asyncio.create_task(UsageKeeper(lambda: [trial], self._run_as).run())
            try:
                return await self._try(selection, trial, environment)
            finally:
                keeper.cancel()
                await asyncio.to_thread(remove_tree, folder)

    async def _try(self, selection: Selection, trial: "_Trial", environment: Mapping[str, str]) -> Verdict:
        try:
            trial.folder.mkdir(parents=True, exist_ok=True)
            # -P: nothing is imported from the folder that it runs in.
            argv = [sys.executable, "-P", "-m", "clipper.learning.own_code.check"]
            if self._run_as is not None:
                os.chown(trial.folder, self._run_as.uid, self._run_as.gid)
                environment = {**environment, "HOME": str(trial.folder)}  # the server's home is closed to it
                argv = entering(self._run_as, MAX_TRIAL_MEMORY_BYTES, None, argv)
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
            limits.apply(process.pid, MAX_TRIAL_MEMORY_BYTES, None)
        said = await _said(process, msgspec.json.encode(selection), trial.mark)
        what = f"policy {selection.policy}, loss {selection.loss}"
        if trial.reason is not None:
            return Verdict(f"{what}: their code {trial.reason}")
        if process.returncode == 0:
            return Verdict(None)
        if process.returncode == 1:
            return Verdict(said)
        if process.returncode in (-signal.SIGALRM, -signal.SIGKILL):
            return Verdict(f"{what}: its code was not imported and made within {TIMEOUT_S} s", is_final=False)
        return Verdict(f"{what}: importing the code ended the process with status {process.returncode}")


class _Trial:
    """A trial, as ``processes.usage.Bounded``. ``reason``: why it was killed; None if it was not."""

    def __init__(self, mark: str, folder: Path) -> None:
        self.mark = mark
        self.folder = folder
        self.bounds = Bounds(MAX_TRIAL_MEMORY_BYTES)
        self.reason: str | None = None

    def kill(self, reason: str) -> None:
        self.reason = reason
        kill_marked(self.mark.__eq__)


async def _said(process: asyncio.subprocess.Process, question: bytes, mark: str) -> str:
    """Return the process's output. When this returns, it and all that it forked have ended."""
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            with contextlib.suppress(ConnectionError):  # it ended before it had read all; its status says why
                process.stdin.write(question)
                await process.stdin.drain()
                process.stdin.close()
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Kill before waiting: its children may hold its output open. On a thread, since scanning the processes of a
        # large machine takes as long as many queries.
        await asyncio.to_thread(kill_marked, mark.__eq__)
        await process.wait()
    return (await process.stdout.read(MAX_SAID_BYTES)).decode(errors="replace")
