"""The fork servers of this machine's containers: one for each warmth that several containers have."""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.process import ManagedProcess
from clipper.base.run_as import RunAs
from clipper.errors import ContainerFailed, Unavailable
from clipper.supervisor.managers.local import fork_server
from clipper.supervisor.managers.local.fork_server import Fork, ForkedChild, ForkServer
from clipper.supervisor.managers.local.warmth import Warmth

log = logging.getLogger(__name__)

# From this container of a warmth on they are forked, and earlier ones if a fork server is there. Those of the last hour
# count, which may sleep by now. For one alone, it would be a second process with the same libraries, and share nothing.
FORK_FROM = 2
# Each holds the libraries of one environment, some 50 to 500 MB.
MAX_FORK_SERVERS = 16
# What is known of warmths that no container has any more. Hardly any home has more environments.
MAX_KNOWN = 256
# A fork server without containers is kept for those that come back, such as models that sleep for a while.
IDLE_S = 3600.0
LOOK_EVERY_S = 15.0
# One that ended so often within that time, or once took too long to warm up, is not started again until the oldest of
# these ends is longer ago.
MAX_DEATHS = 3
DEATHS_WITHIN_S = 300.0
# With less memory than this many times the fork server's, a container begins anew: what it shares counts in full
# against its bound, and the fork server holds more libraries than one model needs.
LEAST_MEMORY_FACTOR = 2


@dataclass(slots=True)
class _Known:
    """The fork server of a warmth, and what is known of it. ``starting``: the start of its fork server, which several
    containers may wait for. ``unfit``: why nothing can be forked for it. ``deaths``: when its fork servers ended by
    themselves or did not start."""

    server: ForkServer | None = None
    starting: "asyncio.Task[None] | None" = None
    unfit: str | None = None
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_DEATHS))


class ForkServers:
    """Starts them when they are needed, and ends those that nobody needs. Used on one event loop."""

    def __init__(
        self, processes: ProcessFolder, logs: Path, run_as: RunAs | None = None, fork_from: int | None = FORK_FROM
    ) -> None:
        """They share a log in the folder ``logs``. ``fork_from``: as ``FORK_FROM``; with None nothing is forked."""
        self._processes = processes
        self._log_path = logs / "fork-server.log"
        self._run_as = run_as
        self._fork_from = fork_from
        self._known: dict[Warmth, _Known] = {}
        self._of_containers: dict[str, Warmth] = {}
        # Since when those containers are gone that are.
        self._gone_since_s: dict[str, float] = {}
        self._count = 0

    def pids(self) -> list[int]:
        """The process ids of those that are warm."""
        return [known.server.pid for known in self._known.values() if known.server is not None and known.server.lives]

    async def fork(
        self,
        name: str,
        warmth: Warmth,
        request: Fork,
        log_path: Path,
        memory_bytes: int | None,
        extra: dict[str, Any],
    ) -> ManagedProcess | None:
        """Fork the container ``name``; None if it has to be started by itself. ``request.variables`` are those besides
        what every process gets. Raises ContainerFailed if it cannot be forked, or cannot be made the container."""
        self._drop_long_gone()
        others = sum(other == warmth for known, other in self._of_containers.items() if known != name)
        self._of_containers[name] = warmth
        self._gone_since_s.pop(name, None)
        if not self._is_shared(warmth, others + 1):
            return None
        server = await self._server(warmth)
        if server is None or (memory_bytes is not None and memory_bytes < LEAST_MEMORY_FACTOR * server.resident_bytes):
            return None
        variables = {**self._processes.environment(name), **request.variables}
        request = Fork(request.options, variables, request.folder, request.code, request.cores)
        try:
            pid = await server.fork(request, log_path)
        except Unavailable as error:
            log.warning(
                "container %(process)s is started by itself, since its fork server has gone: %(error)s",
                {"process": name, "error": error},
            )
            # It may have forked the container before it went.
            await self._processes.end(name)
            return None
        argv = (warmth.python, "-m", "clipper.model.runtime", *request.options)
        child = ForkedChild(server, pid)
        try:
            return self._processes.watch(name, pid, argv, extra, child)
        except ContainerFailed:
            await child.reap()
            raise

    def note(self, name: str, warmth: Warmth, *, is_there: bool) -> None:
        """A container of this warmth was there before this server's start, and still is, or may come back."""
        if name not in self._of_containers:
            self._of_containers[name] = warmth
            if not is_there:
                self.forget(name)

    async def warm_up(self) -> None:
        """Start the fork servers of containers that may come back, one after another, since each takes a processor."""
        self._drop_long_gone()
        for warmth in {self._of_containers[name]: None for name in self._gone_since_s}:
            if self._is_shared(warmth, list(self._of_containers.values()).count(warmth)):
                await self._server(warmth)

    def forget(self, name: str) -> None:
        """A container that was asked for is gone."""
        if name in self._of_containers:
            self._gone_since_s[name] = self._now_s()

    async def run(self) -> None:
        """End those that nobody uses, and warm up those that are missing, until cancelled; then end all."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.end_idle(self._now_s())
                await self.warm_up()
        finally:
            await self.end_all()

    async def end_idle(self, now_s: float) -> None:
        """End those that have been without containers for a while at that time."""
        for warmth, known in list(self._known.items()):
            server = known.server
            if server is not None and not server.containers and now_s >= server.idle_since_s + IDLE_S:
                known.server = None
                await server.stop()
                log.info("ended fork server %(pid)d of %(runtime)s", {"pid": server.pid, "runtime": _named(warmth)})

    async def end_all(self) -> None:
        """End all. Their containers go on."""
        starting = [known.starting for known in self._known.values() if known.starting is not None]
        for task in starting:
            task.cancel()
        if starting:
            await asyncio.wait(starting)
        servers = [known.server for known in self._known.values() if known.server is not None]
        self._known.clear()
        await asyncio.gather(*(server.stop() for server in servers))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()

    def _is_shared(self, warmth: Warmth, containers: int) -> bool:
        """Whether its containers are forked, of which there are so many, also among those that are gone."""
        known = self._known.get(warmth)
        has_server = known is not None and known.server is not None and known.server.lives
        return self._fork_from is not None and (has_server or containers >= self._fork_from)

    async def _server(self, warmth: Warmth) -> ForkServer | None:
        """The warm fork server of a warmth; None if there is none and can be none now."""
        known = self._known.get(warmth)
        if known is None:
            known = self._known[warmth] = _Known()
            self._drop_old()
        if known.server is not None and not known.server.lives:
            known.deaths.append(self._now_s())
            known.server.kill()  # which closes its socket
            known.server = None
        if known.server is None and known.starting is None and self._may_start(warmth, known):
            known.starting = asyncio.get_running_loop().create_task(self._start(warmth, known))
        if known.starting is not None:
            await asyncio.shield(known.starting)
        return known.server

    def _may_start(self, warmth: Warmth, known: _Known) -> bool:
        if known.unfit is not None:
            return False
        now_s = self._now_s()
        if len(known.deaths) == MAX_DEATHS and now_s < known.deaths[0] + DEATHS_WITHIN_S:
            return False
        return len(self.pids()) < MAX_FORK_SERVERS

    async def _start(self, warmth: Warmth, known: _Known) -> None:
        self._count += 1
        loop, name = asyncio.get_running_loop(), f"fork-server-{self._count}"
        began_s, server, why = loop.time(), None, None
        try:
            server = ForkServer.start(name, warmth, self._processes, self._log_path, self._run_as)
            why = known.unfit = await server.warm_up()
            if why is None:
                known.server = server
                log.info(
                    "fork server %(pid)d of %(runtime)s is warm after %(duration_ms)d ms",
                    {"pid": server.pid, "runtime": _named(warmth), "duration_ms": (loop.time() - began_s) * 1000},
                )
        except (ContainerFailed, Unavailable, OSError) as error:
            # One that takes so long would hold up each container that has it tried again.
            took_too_long = loop.time() - began_s >= fork_server.WARM_TIMEOUT_S
            known.deaths.extend([loop.time()] * (MAX_DEATHS if took_too_long else 1))
            why = str(error)
        finally:
            known.starting = None
            if known.server is None and server is not None:
                await server.stop()
        if why is not None:
            log.info(
                "containers of %(runtime)s share no memory: %(reason)s", {"runtime": _named(warmth), "reason": why}
            )

    def _drop_long_gone(self) -> None:
        for gone in [gone for gone, since_s in self._gone_since_s.items() if since_s + IDLE_S < self._now_s()]:
            del self._gone_since_s[gone], self._of_containers[gone]

    def _drop_old(self) -> None:
        """Forget warmths that were asked for longest ago and have no fork server, beyond a number."""
        for warmth, known in list(self._known.items())[: max(len(self._known) - MAX_KNOWN, 0)]:
            if known.server is None and known.starting is None:
                del self._known[warmth]


def _named(warmth: Warmth) -> str:
    libraries = sorted({module.removeprefix("clipper.model.frameworks.").split(".")[0] for module in warmth.modules})
    return f"{warmth.python} with {', '.join(libraries) or 'no library'}"
