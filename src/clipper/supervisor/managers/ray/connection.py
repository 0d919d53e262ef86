"""The server's side of the driver: starts it when it is needed, and matches replies with requests."""

import asyncio
import contextlib
import itertools
import logging
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from clipper.errors import Unavailable
from clipper.supervisor.managers.ray import messages

log = logging.getLogger(__name__)

# How long a server that takes over waits for a Ray head that does not answer.
CONNECT_TIMEOUT_S = 30.0
# After a failure, requests fail at once for this long: a stopping server asks several times for each replica.
RETRY_AFTER_S = 5.0

_REPLY: "msgspec.json.Decoder[messages.Reply]" = msgspec.json.Decoder(messages.Reply)


class ActorGone(Unavailable):
    """The actor has ended."""


class ActorUnreachable(Unavailable):
    """The cluster is there, but the actor does not answer. It may have ended without Ray's knowing yet."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The command by which a home's driver is started.

    It has an interpreter with Clipper and Ray, an ``address`` in the form of ``ray.init``, and the namespace of this
    home's actors. ``may_act`` tells whether this server leads those that share the actors. ``start_again``: see
    ``Facilities``.
    """

    python: str
    address: str
    namespace: str
    environ: Mapping[str, str]
    log_path: Path
    may_act: Callable[[], bool] = lambda: True
    start_again: Callable[[], None] = lambda: None


class Connection:
    """A driver, as long as somebody uses it. A driver that ends is started again by the next request."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: _DriverProcess | None = None
        self._connecting: asyncio.Task[_DriverProcess] | None = None
        self._failure, self._retry_at_s = "", 0.0
        self._numbers = itertools.count(1)

    @property
    def may_act(self) -> bool:
        """Whether this server may do more than look."""
        return self._cluster.may_act()

    def start_again(self) -> None:
        self._cluster.start_again()

    async def ask(self, make: Callable[[int], messages.Request], within_s: float | None = None) -> Any:
        """Send the request that ``make`` makes of its number; return its value.

        It has ``within_s`` from when there is a connection. Raises Unavailable if the cluster cannot be reached,
        refuses, or does not answer in time; ActorGone, which is one, if the request's actor has ended.
        """
        request = make(next(self._numbers))
        if not self.may_act and not (isinstance(request, messages.Call) and request.method in messages.READS):
            raise Unavailable("this server may no longer lead, so it leaves the processes on Ray alone")
        process = await self._connected()
        try:
            async with asyncio.timeout(within_s):
                reply = await process.ask(request)
        except TimeoutError:
            raise Unavailable(f"Ray: no answer within {within_s:g} s") from None
        match reply:
            case messages.Answer(_, value):
                return value
            case messages.Gone(_, reason):
                raise ActorGone(reason)
            case messages.Failed(_, reason, is_unreachable):
                raise (ActorUnreachable if is_unreachable else Unavailable)(f"Ray: {reason}")
        raise Unavailable(f"the connection to Ray at {self._cluster.address} was lost; trying again")

    def close(self) -> None:
        """End the driver. Detached actors go on."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._process is not None:
            self._process.close()
            self._process = None

    async def _connected(self) -> "_DriverProcess":
        if self._process is not None and not self._process.ended.done():
            return self._process
        if self._connecting is None:
            if asyncio.get_running_loop().time() < self._retry_at_s:
                raise Unavailable(self._failure)
            self.close()
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            # Retrieved here, because all its waiters may be gone when it fails.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Others wait for it, too, so it continues if one waiter gives up.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> "_DriverProcess":
        try:
            self._process = await self._start()
        except Unavailable as error:
            self._failure = str(error)
            self._retry_at_s = asyncio.get_running_loop().time() + RETRY_AFTER_S
            raise
        finally:
            if self._connecting is asyncio.current_task():  # else it was closed, and another may be under way
                self._connecting = None
        return self._process

    async def _start(self) -> "_DriverProcess":
        cluster = self._cluster
        process = _DriverProcess(cluster)
        try:
            either: list[asyncio.Future[Any]] = [process.connected, process.ended]
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if process.connected.done():
                # The name in clipper cluster list.
                owner = cluster.namespace.removesuffix(messages.WORKERS_SUFFIX)
                log.info("connected to Ray at %(address)s", {"address": f"{cluster.address}, as the owner {owner}"})
                return process
            reason = process.ended.result()
        except TimeoutError:
            reason = f"no answer for {CONNECT_TIMEOUT_S:g} s"
        except BaseException:
            process.close()
            raise
        process.close()
        raise Unavailable(
            f"Ray cannot be reached at {cluster.address}: {reason}; start it on this machine by "
            f"ray start, or give another --ray-address; {cluster.log_path} has more"
        )


class _DriverProcess:
    """The process of a driver. ``connected`` is done once it is connected. ``ended`` is done, with the reason, once it
    has ended.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Start a driver. Raises Unavailable if it cannot be started."""
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self._waiting: dict[int, asyncio.Future[messages.Reply | None]] = {}
        self._refusal = ""
        try:
            with cluster.log_path.open("ab") as output:
                self._process = subprocess.Popen(
                    [
                        cluster.python,
                        "-m",
                        "clipper.supervisor.managers.ray.driver",
                        cluster.address,
                        cluster.namespace,
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=dict(cluster.environ),
                    start_new_session=True,
                )
        except OSError as error:
            raise Unavailable(f"{cluster.python} cannot be started to connect to Ray: {error}") from error
        # A thread, because the server's event loop may end before the driver does.
        threading.Thread(target=self._read, args=(loop,), daemon=True).start()

    async def ask(self, request: messages.Request) -> messages.Reply | None:
        """Send a request; return the reply, or None if the driver ends before."""
        replied: asyncio.Future[messages.Reply | None] = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = replied
        assert self._process.stdin is not None
        try:
            # Most requests are smaller than a pipe, and the driver reads all the time.
            self._process.stdin.write(messages.line(request))
            self._process.stdin.flush()
            return await replied
        except (OSError, ValueError):
            return None
        finally:
            self._waiting.pop(request.number, None)

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        process = self._process
        assert process.stdout is not None
        try:
            with process.stdout as replies:
                for text in replies:
                    self._on_loop(loop, self._receive, _REPLY.decode(text))
        except msgspec.MsgspecError as error:
            log.error("the driver of Ray sent something that is not a reply, and is ended: %(error)s", {"error": error})
            process.kill()
        process.wait()
        self._on_loop(loop, self._end, None)

    def _on_loop(self, loop: asyncio.AbstractEventLoop, act: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits any more
            loop.call_soon_threadsafe(act, argument)

    def _receive(self, reply: messages.Reply) -> None:
        match reply:
            case messages.Connected():
                self.connected.set_result(None)
            case messages.Refused(reason):
                self._refusal = reason
            case _:
                waiting = self._waiting.get(reply.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)

    def _end(self, _nothing: None) -> None:
        self.ended.set_result(self._refusal or f"its driver ended with code {self._process.returncode}")
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)
