"""The fork servers of this machine's containers: a fork server for each warmth that several containers have."""

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

# From this many containers of a warmth on, they are forked; or earlier if it has a fork server. Containers of the last
# hour count, since they may be asleep. For a single container, a fork server would share nothing.
FORK_FROM = 2
# A fork server holds the libraries of an environment, some 50 to 500 MB.
MAX_FORK_SERVERS = 16
# At most this many warmths without containers are remembered. Hardly any home has more environments.
MAX_KNOWN = 256
# A fork server without containers is kept for this long, for containers that return, such as those of sleeping models.
IDLE_S = 3600.0
LOOK_EVERY_S = 15.0
# A fork server that ended this often within that time, or once took too long to warm up, is not started again until the
# oldest of these ends is longer ago.
MAX_DEATHS = 3
DEATHS_WITHIN_S = 300.0
# A container whose bound is less than this many times the fork server's memory begins anew: shared memory counts fully
# against its bound, and the fork server holds more libraries than a model needs.
LEAST_MEMORY_FACTOR = 2


@dataclass(slots=True)
class _Known:
    """A warmth and its fork server.

    Attributes:
        starting: the start of its fork server, which several containers may wait for.
        unfit: why nothing can be forked for it.
        deaths: when its fork servers ended by themselves or did not start.
    """

    server: ForkServer | None = None
    starting: "asyncio.Task[None] | None" = None
    unfit: str | None = None
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_DEATHS))


class ForkServers:
    """Starts fork servers when they are needed, and ends those that nobody needs. Used on one event loop."""

    def __init__(
        self, processes: ProcessFolder, logs: Path, run_as: RunAs | None = None, fork_from: int | None = FORK_FROM
    ) -> None:
        """Fork nothing if ``fork_from``, see ``FORK_FROM``, is None. Fork servers share a log in ``logs``."""
        self._processes = processes
        self._log_path = logs / "fork-server.log"
        self._run_as = run_as
        self._fork_from = fork_from
        self._known: dict[Warmth, _Known] = {}
        self._of_containers: dict[str, Warmth] = {}
        # By container that is gone, since when.
        self._gone_since_s: dict[str, float] = {}
        self._count = 0

    def pids(self) -> list[int]:
        """Return the process ids of warm fork servers."""
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
        """Fork the container ``name``; None if it has to be started by itself.

        ``request.variables`` are the variables besides those that every process gets. Raises ContainerFailed if it
        cannot be forked, or cannot become the container.
        """
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
            # The fork server may have forked the container before it went.
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
        """Note a container of this warmth from before this server's start, which still runs or may come back."""
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
        """Note that a container is gone."""
        if name in self._of_containers:
            self._gone_since_s[name] = self._now_s()

    async def run(self) -> None:
        """End fork servers that nobody uses, and warm up missing ones, until cancelled; then end all."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.end_idle(self._now_s())
                await self.warm_up()
        finally:
            await self.end_all()

    async def end_idle(self, now_s: float) -> None:
        """End fork servers that have been without containers for a while at ``now_s``."""
        for warmth, known in list(self._known.items()):
            server = known.server
            if server is not None and not server.containers and now_s >= server.idle_since_s + IDLE_S:
                known.server = None
                await server.stop()
                log.info("ended fork server %(pid)d of %(runtime)s", {"pid": server.pid, "runtime": _named(warmth)})

    async def end_all(self) -> None:
        """End all fork servers. Their containers go on."""
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
        """Whether a warmth's containers are forked. It has this many, including those that are gone."""
        known = self._known.get(warmth)
        has_server = known is not None and known.server is not None and known.server.lives
        return self._fork_from is not None and (has_server or containers >= self._fork_from)

    async def _server(self, warmth: Warmth) -> ForkServer | None:
        """Return the warm fork server of a warmth, starting it if need be; None if there can be none now."""
        known = self._known.get(warmth)
        if known is None:
            known = self._known[warmth] = _Known()
            self._drop_old()
        if known.server is not None and not known.server.lives:
            known.deaths.append(self._now_s())
            known.server.kill()  # which closes its socket
            known.server = None
        if known.server is None and known.starting is None and self._may_start(known):
            known.starting = asyncio.get_running_loop().create_task(self._start(warmth, known))
        if known.starting is not None:
            await asyncio.shield(known.starting)
        return known.server

    def _may_start(self, known: _Known) -> bool:
        dies_often = len(known.deaths) == MAX_DEATHS and self._now_s() < known.deaths[0] + DEATHS_WITHIN_S
        return known.unfit is None and not dies_often and len(self.pids()) < MAX_FORK_SERVERS

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
            # Such a fork server would delay each container that tries it again.
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
        """Forget the oldest warmths without a fork server, beyond a number."""
        for warmth, known in list(self._known.items())[: max(len(self._known) - MAX_KNOWN, 0)]:
            if known.server is None and known.starting is None:
                del self._known[warmth]


def _named(warmth: Warmth) -> str:
    libraries = sorted({module.removeprefix("clipper.model.frameworks.").split(".")[0] for module in warmth.modules})
    return f"{warmth.python} with {', '.join(libraries) or 'no library'}"
