"""Prepares the Python that a model runs in before its containers start: once, however many containers wait for it."""

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.marks import MARK
from clipper.base.run_as import RunAs
from clipper.errors import ContainerFailed
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.environments.builder import BUILD_TIMEOUT_S
from clipper.supervisor.managers.environments.plan import Interpreter, Own, needs_of, plan_environment
from clipper.supervisor.managers.environments.prepare import Prepared, Progress, Refused, Reply, Request
from clipper.supervisor.managers.environments.uv_settings import for_builds
from clipper.supervisor.managers.launcher import OnProgress

# An installer saturates the network or a processor. More at once would slow each other and the models down.
MAX_BUILDS = 2
# The number of remembered results, so that a container that died restarts quickly. Hardly any home has more models.
MAX_KNOWN = 1000
# A build has its own timeout. The rest is for finding interpreters and listing their packages.
PREPARE_TIMEOUT_S = BUILD_TIMEOUT_S + 120.0
# A failure has the installer's last lines, whose characters may take four bytes each.
MAX_REPLY_BYTES = 1024 * 1024

_REPLY: "msgspec.json.Decoder[Reply]" = msgspec.json.Decoder(Reply)


@dataclass(slots=True)
class _Preparation:
    """A preparation under way, and its waiters."""

    task: "asyncio.Task[Prepared]" = field(init=False)
    listeners: list[OnProgress] = field(default_factory=list)
    now: str = "waiting for other environments to be built"

    def on_progress(self, text: str) -> None:
        self.now = text
        for listener in self.listeners:
            listener(text)


class EnvironmentProvider:
    """The Pythons of this home's models. Used on one event loop."""

    def __init__(self, processes: ProcessFolder, artifacts: Path, root: Path, run_as: RunAs | None = None) -> None:
        """Make a provider. ``root`` is the folder of environments. ``run_as`` builds them and runs in them."""
        self._processes = processes
        self._artifacts = artifacts
        self._root = root
        self._run_as = run_as
        self._slots = asyncio.Semaphore(MAX_BUILDS)
        self._count = 0
        self._under_way: dict[Request, _Preparation] = {}
        self._known: dict[Request, Prepared] = {}

    async def prepare(self, spec: VersionSpec, on_progress: OnProgress) -> Prepared:
        """Return the interpreter to run a version with, at once if nothing has to be built.

        A build that nobody waits for any more is ended. Raises ContainerFailed if there is no such Python and it cannot
        be made; ``log_tail`` has the installer's last lines.
        """
        path = None if spec.requirements is None else self._artifacts / spec.artifact / spec.requirements
        try:
            requirements = None if path is None else path.read_text()
        except (OSError, ValueError) as error:
            raise ContainerFailed(f"its requirements cannot be read: {error}") from error
        is_code = spec.loader == "import" and spec.framework is None
        data = str(self._artifacts / spec.artifact / spec.data) if is_code and spec.data is not None else None
        request = Request(str(self._root), requirements, spec.python, needs_of(spec), self._run_as, data)
        known = self._known.get(request)
        if known is not None and Path(known.python).exists():
            return known
        if _is_at_hand(request):
            return self._remember(request, Prepared(spec.python or sys.executable))
        preparation = self._under_way.get(request) or self._begin(request)
        preparation.listeners.append(on_progress)
        on_progress(preparation.now)
        try:
            return await asyncio.shield(preparation.task)
        finally:
            preparation.listeners.remove(on_progress)
            if not preparation.listeners and not preparation.task.done():
                # Removed first: a caller that comes from now on must begin a new preparation.
                del self._under_way[request]
                preparation.task.cancel()
                await asyncio.wait([preparation.task])

    def _begin(self, request: Request) -> _Preparation:
        preparation = self._under_way[request] = _Preparation()

        def forget(_task: "asyncio.Task[Prepared]") -> None:
            if self._under_way.get(request) is preparation:
                del self._under_way[request]

        preparation.task = asyncio.get_running_loop().create_task(self._run(request, preparation.on_progress))
        preparation.task.add_done_callback(forget)
        return preparation

    async def _run(self, request: Request, on_progress: OnProgress) -> Prepared:
        async with self._slots:
            on_progress("looking for its environment")
            try:
                async with asyncio.timeout(PREPARE_TIMEOUT_S):
                    prepared = await self._ask_process(request, on_progress)
            except (TimeoutError, OSError, ValueError) as error:
                raise ContainerFailed(f"its environment cannot be built: {error or 'it takes too long'}") from error
        return self._remember(request, prepared)

    def _remember(self, request: Request, prepared: Prepared) -> Prepared:
        self._known[request] = prepared
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return prepared

    async def _ask_process(self, request: Request, on_progress: OnProgress) -> Prepared:
        self._count += 1
        mark = self._processes.environment(f"environment-{self._count}")[MARK]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clipper.supervisor.managers.environments.prepare",
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_REPLY_BYTES,
            # It gets the variables that steer pip, uv and the network. A package's build must not see the others.
            env={**for_builds(os.environ), MARK: mark},
            start_new_session=True,
        )
        try:
            return await _replies(process, request, on_progress)
        finally:
            # Until it is reaped, no other process has its pid and no other process group its number.
            with contextlib.suppress(ProcessLookupError):
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await self._processes.endings.end(mark)  # processes that it started and that have left its session


def _is_at_hand(request: Request) -> bool:
    """Whether there is nothing to find, to build or to compare. Finding that out takes a tenth of a second."""
    here = Interpreter(sys.executable, platform.python_version())
    packages = {one.name: one.version for one in importlib.metadata.distributions()} if request.needs else {}
    if plan_environment(request.requirements, request.python, request.needs, Own(here, packages)) is not None:
        return False
    # Clipper's own Python has what is needed. Another Python must be asked.
    return request.data is None and (request.python is None or not request.needs)


async def _replies(process: Process, request: Request, on_progress: OnProgress) -> Prepared:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(msgspec.json.encode(request) + b"\n")
    while line := await process.stdout.readline():
        match _REPLY.decode(line):
            case Progress(text):
                on_progress(text)
            case Refused(reason, log_tail):
                raise ContainerFailed(reason, list(log_tail))
            case Prepared() as prepared:
                return prepared
    raise ContainerFailed("its environment cannot be built: the builder was killed; see the server's log")
