"""A fork server: a process with libraries in memory, from which containers are forked: ``runtime/fork_server.py``."""

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from clipper.base.processes import limits
from clipper.base.processes.enter import entering
from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import parent_of, session_busy_s, user_of
from clipper.base.processes.process import ManagedProcess, kill_group
from clipper.base.run_as import RunAs
from clipper.errors import ContainerFailed, Unavailable
from clipper.supervisor.managers.local.warmth import Warmth
from clipper.supervisor.managers.reconcile.plan import StartTime
from clipper.values.types import MAX_FORK_MESSAGE_BYTES, ROOM_VARIABLE


class Fork(Struct, frozen=True, tag=True):
    """A request to fork, with the descriptor of the container's log. The fields are ``runtime.forked.Container``'s."""

    options: tuple[str, ...]
    variables: dict[str, str]
    folder: str
    code: str
    cores: tuple[int, ...] | None = None


class Reap(Struct, frozen=True, tag=True):
    pid: int


class Warm(Struct, frozen=True, tag=True):
    resident_bytes: Annotated[int, Meta(ge=0)]


class Unfit(Struct, frozen=True, tag=True):
    why: str


class Forked(Struct, frozen=True, tag=True):
    pid: Annotated[int, Meta(gt=1)]


class Refused(Struct, frozen=True, tag=True):
    why: str


class Reaped(Struct, frozen=True, tag=True):
    """The exit status of a container, negative for a signal; None if it has not exited."""

    code: Annotated[int, Meta(ge=-64, le=255)] | None


Request = Fork | Reap
Reply = Warm | Unfit | Forked | Refused | Reaped

REPLY: "msgspec.json.Decoder[Reply]" = msgspec.json.Decoder(Reply)


# The time limit for importing libraries, even the first time after the machine's start, when the disk has to be read. A
# fork server may take twice as long while it computes.
WARM_TIMEOUT_S = 60.0
# How often it is looked at during that time.
LOOK_S = 0.5
# A fork takes milliseconds. A fork server that takes longer than this is considered hung.
ANSWER_TIMEOUT_S = 10.0
# Room for the command line and the variables of a container, which are some hundred bytes each. If they need more, e.g.
# because of long paths, the container begins anew.
_ARGUMENTS_ROOM = "." * 4096
_VARIABLES_ROOM = "." * 8192
# Arrow, which comes with pandas and so with scikit-learn, starts a thread unless this variable forbids it.
_WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


class ForkServer:
    """Forks containers of a warmth.

    It ends with the supervisor and is not taken over, though its containers are: to be taken over, it would have to be
    reachable for another process, and so for models, which run as its user.

    ``containers`` counts those that have not been reaped; ``idle_since_s`` is since when there are none.
    """

    def __init__(self, process: ManagedProcess, channel: socket.socket, run_as: RunAs | None) -> None:
        self._process = process
        self._channel = channel
        self._user = os.geteuid() if run_as is None else run_as.uid
        # One request at a time, so that each reply belongs to the last request.
        self._lock = asyncio.Lock()
        self._is_ended = False
        self.containers = 0
        self.idle_since_s = asyncio.get_running_loop().time()
        self.resident_bytes = 0

    @classmethod
    def start(
        cls, name: str, warmth: Warmth, processes: ProcessFolder, log_path: Path, run_as: RunAs | None
    ) -> "ForkServer":
        """Start a fork server, which then warms up. Raises ContainerFailed or OSError if it cannot be started."""
        # SEQPACKET: each message is received whole or not at all.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            guarded = [] if run_as is None else ["--guarded"]
            options = ["--socket", str(theirs.fileno()), *guarded, "--room", _ARGUMENTS_ROOM]
            argv = [warmth.python, "-m", "clipper.model.runtime.fork_server", *options, *warmth.modules]
            # Only root can put a module into the folder that Python searches first.
            variables = (
                dict(warmth.variables)
                | _WITHOUT_THREADS
                | {ROOM_VARIABLE: _VARIABLES_ROOM}
                | ({} if run_as is None else {"HOME": "/"})
            )
            if run_as is not None:
                argv = entering(run_as, None, None, argv)
            ours.setblocking(False)
            try:
                process = processes.launch(
                    name,
                    argv,
                    log_path=log_path,
                    cwd=Path("/"),
                    environment=variables,
                    extra=None,
                    descriptors=(theirs.fileno(),),
                )
            except BaseException:
                ours.close()
                raise
        server = cls(process, ours, run_as)
        if run_as is None:
            try:
                limits.apply(process.pid, None, None)
            except OSError:
                server.kill()
                raise
        return server

    @property
    def lives(self) -> bool:
        return not self._is_ended and not self._process.exited.is_set()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def warm_up(self) -> str | None:
        """Wait until it is warm; return why nothing can be forked, if so. Raises Unavailable once it is gone."""
        async with self._lock:
            reply = await self._warm_reply()
        if isinstance(reply, Warm):
            self.resident_bytes = reply.resident_bytes
            return None
        self.kill()
        if isinstance(reply, Unfit):
            return reply.why
        raise Unavailable(f"it says {type(reply).__name__} before it is warm")

    async def fork(self, request: Fork, log_path: Path) -> int:
        """Fork a container; return its process id. If this is cancelled, nothing of the container is left running.

        Raises ContainerFailed if it cannot be forked, and Unavailable if the fork server has gone or was ended over it.
        """
        asking = asyncio.ensure_future(self._fork(request, log_path))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            with suppress(ContainerFailed, Unavailable):
                pid = await asking
                kill_group(pid)
                await self.reap(pid)
            raise

    async def reap(self, pid: int) -> int | None:
        """Return the exit status of a container; None if nobody knows it, since the fork server has gone."""
        self.containers -= 1
        self.idle_since_s = asyncio.get_running_loop().time()
        with suppress(Unavailable):
            reply = await self._ask(Reap(pid))
            return reply.code if isinstance(reply, Reaped) else None
        return None

    def kill(self) -> None:
        """End the fork server. Its containers go on."""
        self._is_ended = True
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        if not self._lock.locked():  # else the task that waits for a reply closes it
            self._channel.close()
        self._process.kill()

    async def stop(self) -> None:
        """End the fork server; return when it is gone."""
        self.kill()
        await self._process.stop(grace_s=0)

    async def _fork(self, request: Fork, log_path: Path) -> int:
        try:
            output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ContainerFailed(f"its log cannot be written: {error}") from error
        try:
            reply = await self._ask(request, output)
        finally:
            os.close(output)
        if isinstance(reply, Refused):
            raise ContainerFailed(f"it cannot be forked: {reply.why}")
        # It runs as the models' user, so its reply is checked: otherwise it could have us kill any process.
        if not isinstance(reply, Forked) or (parent_of(reply.pid), user_of(reply.pid)) != (self.pid, self._user):
            self.kill()
            raise Unavailable(f"it says that it has forked a process that is not its own: {reply!r:.100}")
        self.containers += 1
        return reply.pid

    async def _ask(self, request: Request, *descriptors: int) -> Reply:
        async with self._lock:
            message = msgspec.json.encode(request)
            if len(message) > MAX_FORK_MESSAGE_BYTES:
                raise ContainerFailed(f"its start message takes {len(message)} bytes, over {MAX_FORK_MESSAGE_BYTES}")
            with suppress(OSError):  # a fork server that has gone does not answer
                socket.send_fds(self._channel, [message], descriptors)
            return await self._reply(ANSWER_TIMEOUT_S)

    async def _warm_reply(self) -> Reply:
        """Await the first reply. On a busy machine an import may go on after its time, as long as it computes."""
        loop = asyncio.get_running_loop()
        time = StartTime(loop.time(), WARM_TIMEOUT_S)
        replying = loop.create_task(self._reply(time.last_s - loop.time()))
        try:
            while not (await asyncio.wait([replying], timeout=LOOK_S))[0]:
                now_s = loop.time()
                if time.has_to_look(now_s) and time.is_over(now_s, session_busy_s(self.pid)):
                    raise Unavailable(f"it is not warm after {WARM_TIMEOUT_S:g} s, and does not compute")
            return replying.result()
        finally:
            if not replying.done():
                replying.cancel()
                await asyncio.wait([replying])

    async def _reply(self, timeout_s: float) -> Reply:
        """Await the reply to the last request, with the lock held. Raises Unavailable after it has been ended."""
        try:
            return await self._received(timeout_s)
        except BaseException:
            self.kill()  # a late reply would pass for the reply to another request
            raise
        finally:
            if self._is_ended:
                self._channel.close()

    async def _received(self, timeout_s: float) -> Reply:
        if self._is_ended:
            raise Unavailable("it was ended")
        try:
            async with asyncio.timeout(timeout_s):
                message = await asyncio.get_running_loop().sock_recv(self._channel, MAX_FORK_MESSAGE_BYTES)
            if message:
                return REPLY.decode(message)
        except TimeoutError:
            raise Unavailable(f"it did not answer for {timeout_s:g} s") from None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise Unavailable(f"it does not answer as it should: {error}") from error
        has_exited = await self._process.has_exited_within(ANSWER_TIMEOUT_S)
        raise Unavailable(f"it {self._process.how_it_ended if has_exited else 'closed its socket'}")


class ForkedChild:
    """A ``Child`` whose parent is a fork server."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self._pid = pid

    @property
    def is_held(self) -> bool:
        return self._server.lives

    async def reap(self) -> int | None:
        return await self._server.reap(self._pid)
