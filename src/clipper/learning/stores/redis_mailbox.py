"""Messages between the workers of servers that share a Redis, through that Redis.

Workers of one server pass feedback on to each other directly. Those of other servers may be pods that cannot reach each
other, but all reach the store, and need no port, address or certificate for it: whoever can write there can change what
is learned anyway. Each worker has a list there, from which it takes requests and the replies to its own; and each is a
member for as long as it says so once a second.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError

from clipper.errors import ClipperError, Overloaded, StoreUnavailable, Unavailable

log = logging.getLogger(__name__)

# Members announce themselves this often, and learn of others. A member that is silent for ``MEMBER_FOR_S`` has ended,
# or its loop was held up.
MEET_EVERY_S = 1.0
MEMBER_FOR_S = 5
# A message that no worker takes within this time is for a worker that has ended. Its sender gave up long before.
KEPT_FOR_S = 30
# The most messages that may wait for a worker. Each other worker has at most three under way to it, so more waiting
# messages mean that the worker hangs.
MAX_WAITING = 128
# Requests that a worker answers at once, each of which waits for the store's disk; further ones wait in its list.
MAX_ANSWERING = 64
# A wait for a message, which is shorter than the client's timeout; and the wait of an end for requests in progress.
WAIT_S = 1
# The wait after an error before Redis is asked again.
RETRY_S = 1.0

# ARGV: prefix, own instance and token, how long it counts as a member from now on, by Redis' own clock: 0 to leave.
# Returns the instance and the token of each member.
MEET = """
local now_s = tonumber(redis.call('TIME')[1])
local key = ARGV[1] .. 'workers'
redis.call('ZADD', key, now_s + ARGV[3], ARGV[2])
redis.call('ZREMRANGEBYSCORE', key, '-inf', now_s)
return redis.call('ZRANGE', key, 0, -1)
"""

# ARGV: prefix, the token of the receiver, the message, bound of waiting messages, how long they are kept. Returns
# whether there was room.
POST = """
local key = ARGV[1] .. 'mailbox:' .. ARGV[2]
if redis.call('LLEN', key) >= tonumber(ARGV[4]) then return 0 end
redis.call('RPUSH', key, ARGV[3])
redis.call('EXPIRE', key, ARGV[5])
return 1
"""


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """A request, or the reply to the request of this number.

    ``sender`` is the token of the worker that sent it. A reply without a body says that the request failed there.
    """

    sender: str
    number: int
    is_reply: bool
    body: bytes | None


_decode = msgspec.msgpack.Decoder(_Message).decode
_encode = msgspec.msgpack.Encoder().encode

Answer = Callable[[bytes], Awaitable[bytes]]


class RedisMailbox:
    """See ``stores.store.Mailbox``."""

    def __init__(self, client: Any, prefix: str, instance: int) -> None:
        self._client = client
        self._prefix = prefix
        # No other start of any worker has this token: another server may number one of its workers in the same way.
        self._token = secrets.token_hex(8)
        self._name = f"{instance}:{self._token}"
        self._tokens: dict[int, str] = {}
        self._meet = client.register_script(MEET)
        self._post = client.register_script(POST)
        # By number, the token of the member that was asked, and its reply.
        self._asked: dict[int, tuple[str, asyncio.Future[bytes | None]]] = {}
        self._numbers = 0
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def members(self) -> Container[int]:
        return self._tokens

    async def ask(self, instance: int, request: bytes, timeout_s: float) -> bytes:
        token = self._tokens.get(instance)
        if token is None:
            raise Unavailable("it has ended")
        self._numbers += 1
        number = self._numbers
        reply: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = token, reply
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(token, _Message(self._token, number, False, request))
                body = await reply
        except TimeoutError as error:
            raise Unavailable(f"it did not answer within {timeout_s:g} s") from error
        finally:
            del self._asked[number]
        if body is None:
            raise Unavailable("it failed on the request: its log says why")
        return body

    async def run(self, answer: Answer) -> None:
        meeting = asyncio.get_running_loop().create_task(self._keep_meeting())
        try:
            await self._keep_taking(answer)
        finally:
            meeting.cancel()
            await asyncio.wait([meeting])
            # Others need not wait until it counts no more.
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._tell(0)
            if self._answering:
                await asyncio.wait(self._answering, timeout=WAIT_S)
            for task in self._answering:
                task.cancel()

    async def meet(self) -> None:
        found: dict[int, str] = {}
        for member in await self._tell(MEMBER_FOR_S):
            instance, _, token = member.decode(errors="replace").partition(":")
            if instance.isdecimal() and token != self._token:
                found[int(instance)] = token
        self._tokens = found
        present = set(found.values())
        for token, reply in self._asked.values():
            if token not in present and not reply.done():
                reply.set_exception(Unavailable("it has ended"))

    async def _tell(self, member_for_s: int) -> list[bytes]:
        try:
            members: list[bytes] = await self._meet(args=[self._prefix, self._name, member_for_s])
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"other servers cannot be found: {error}") from error
        return members

    async def _keep_meeting(self) -> None:
        while not _is_cancelled():
            with suppress(StoreUnavailable):  # the members stay as they were, and commits say that the store is away
                await self.meet()
            await asyncio.sleep(MEET_EVERY_S)

    async def _keep_taking(self, answer: Answer) -> None:
        key = f"{self._prefix}mailbox:{self._token}"
        while not _is_cancelled():
            if len(self._answering) >= MAX_ANSWERING:
                await asyncio.wait(self._answering, return_when=asyncio.FIRST_COMPLETED)
            try:
                taken = await self._client.blpop([key], timeout=WAIT_S)
                message = None if taken is None else _decode(taken[1])
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_S)
                continue
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # somebody else wrote it
                log.warning("a message of another worker cannot be read: %(error)s", {"error": error})
                continue
            if message is None:
                continue
            if not message.is_reply:
                task = asyncio.get_running_loop().create_task(self._reply(message, answer))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            elif message.number in self._asked:
                _, reply = self._asked[message.number]
                if not reply.done():
                    reply.set_result(message.body)

    async def _reply(self, request: _Message, answer: Answer) -> None:
        try:
            body = await answer(request.body or b"")
        except Exception:  # its sender gets an answer whatever happens here
            log.exception("failed to answer another server's worker")
            body = None
        try:
            await self._send(request.sender, _Message(self._token, request.number, True, body))
        except ClipperError as error:  # its sender's wait ends by itself
            log.warning("another server's worker cannot be answered: %(error)s", {"error": error})

    async def _send(self, token: str, message: _Message) -> None:
        """Raises Overloaded and StoreUnavailable."""
        arguments = [self._prefix, token, _encode(message), MAX_WAITING, KEPT_FOR_S]
        try:
            has_room = await self._post(args=arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"it cannot be reached through the store: {error}") from error
        if not has_room:
            raise Overloaded(f"{MAX_WAITING} messages wait for it already")


def _is_cancelled() -> bool:
    """Whether this task was cancelled. The client may swallow that when its own time-out comes in the same moment."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
