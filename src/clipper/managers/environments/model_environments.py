"""Has the Python ready that a model is to run in, before its containers start: built at most once, whoever waits."""

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from clipper.errors import ContainerFailed
from clipper.managers.environments.builder import BUILD_TIMEOUT_S
from clipper.managers.environments.plan import Own, plan_environment
from clipper.managers.environments.program import Prepared, Progress, Refused, Reply, Request
from clipper.managers.environments.recipe import Interpreter
from clipper.managers.environments.surroundings import for_builds
from clipper.processes.managed import MARK, ProcessFolder, kill_marked
from clipper.run_as import RunAs
from clipper.settings.version import VersionSpec

# An installer is busy with the network or with one compiler; more would only slow each other, and the models, down.
MAX_BUILDS = 2
# What was prepared before needs no asking, so that a container that died is soon back. More models hardly anyone has.
MAX_KNOWN = 1000
# A build ends itself; this much more is for finding interpreters and looking at what they have.
PROGRAM_TIMEOUT_S = BUILD_TIMEOUT_S + 120.0

_REPLY: "msgspec.json.Decoder[Reply]" = msgspec.json.Decoder(Reply)

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Preparation:
    """One that is under way, and who waits for it."""

    task: "asyncio.Task[Prepared]" = field(init=False)
    listeners: list[Tell] = field(default_factory=list)
    now: str = "waiting for other environments to be built"

    def tell(self, text: str) -> None:
        self.now = text
        for listener in self.listeners:
            listener(text)


class ModelEnvironments:
    """The Pythons of this home's models. Runs on the event loop that it is used on."""

    def __init__(self, processes: ProcessFolder, artifacts: Path, root: Path, run_as: RunAs | None = None) -> None:
        """``root``: where environments are. ``run_as``: the user that builds them and runs in them."""
        self._processes = processes
        self._artifacts = artifacts
        self._root = root
        self._run_as = run_as
        self._slots = asyncio.Semaphore(MAX_BUILDS)
        self._count = 0
        self._under_way: dict[Request, _Preparation] = {}
        self._known: dict[Request, Prepared] = {}

    async def prepare(self, spec: VersionSpec, tell: Tell) -> Prepared:
        """Return the interpreter to run a version with; ``tell`` is called with what is going on until then.

        One that needs nothing is returned at once. If nobody waits for a build any more, it is ended.

        Raises:
            ContainerFailed: there is none such and it cannot be made; ``log_tail`` holds the installer's last lines.
        """
        request = self._request(spec)
        known = self._known.get(request)
        if known is not None and Path(known.python).exists():
            return known
        if _is_there(request):
            return self._remember(request, Prepared(spec.python or sys.executable))
        one = self._under_way.get(request) or self._begin(request)
        one.listeners.append(tell)
        tell(one.now)
        try:
            return await asyncio.shield(one.task)
        finally:
            one.listeners.remove(tell)
            if not one.listeners and not one.task.done():
                # Who asks from now on begins anew.
                del self._under_way[request]
                one.task.cancel()
                await asyncio.wait([one.task])

    def _request(self, spec: VersionSpec) -> Request:
        path = None if spec.requirements is None else self._artifacts / spec.artifact / spec.requirements
        try:
            text = None if path is None else path.read_text()
        except (OSError, ValueError) as error:
            raise ContainerFailed(f"its requirements cannot be read: {error}") from error
        return Request(str(self._root), text, spec.python, spec.needs, self._run_as)

    def _begin(self, request: Request) -> _Preparation:
        one = self._under_way[request] = _Preparation()
        one.task = asyncio.get_running_loop().create_task(self._run(request, one.tell))
        one.task.add_done_callback(lambda _: self._forget(request, one))
        return one

    def _forget(self, request: Request, one: _Preparation) -> None:
        if self._under_way.get(request) is one:
            del self._under_way[request]

    async def _run(self, request: Request, tell: Tell) -> Prepared:
        async with self._slots:
            tell("looking for its environment")
            try:
                async with asyncio.timeout(PROGRAM_TIMEOUT_S):
                    prepared = await self._ask_program(request, tell)
            except (TimeoutError, OSError, ValueError) as error:
                raise ContainerFailed(f"its environment cannot be built: {error or 'it takes too long'}") from error
        return self._remember(request, prepared)

    def _remember(self, request: Request, prepared: Prepared) -> Prepared:
        self._known[request] = prepared
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return prepared

    async def _ask_program(self, request: Request, tell: Tell) -> Prepared:
        self._count += 1
        mark = self._processes.environment(f"environment-{self._count}")[MARK]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "clipper.managers.environments.program",
            stdin=PIPE,
            stdout=PIPE,
            # What steers pip, uv and the network here is to steer it there; what else is ours is not for builds to see.
            env={**for_builds(os.environ), MARK: mark},
            start_new_session=True,
        )
        try:
            return await _replies(process, request, tell)
        finally:
            await _end(process)
            kill_marked(mark.__eq__)  # what it had started and that left its session


def _is_there(request: Request) -> bool:
    """Whether there is nothing to find, to build or to compare. Takes a tenth of a second."""
    here = Interpreter(sys.executable, platform.python_version())
    packages = {one.name: one.version for one in importlib.metadata.distributions()} if request.needs else {}
    if plan_environment(request.requirements, request.python, request.needs, Own(here, packages)) is not None:
        return False
    # Clipper's own has what is needed; of another it has to be asked.
    return request.python is None or not request.needs


async def _end(process: Process) -> None:
    # Until it is reaped its pid is its own, and so is the number of its session's process group.
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _replies(process: Process, request: Request, tell: Tell) -> Prepared:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(msgspec.json.encode(request) + b"\n")
    while line := await process.stdout.readline():
        match _REPLY.decode(line):
            case Progress(text):
                tell(text)
            case Refused(reason, log_tail):
                raise ContainerFailed(reason, list(log_tail))
            case Prepared() as prepared:
                return prepared
    raise ContainerFailed("its environment cannot be built: the builder was killed; see the server's log")
