"""The listening side of gRPC, by ``grpc.aio``: whose threads speak HTTP/2, and whose calls are tasks of this loop.

The one module that needs the extra ``grpc``.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

# A client must not fill the log: what it does wrong it is told.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc import aio

from clipper.errors import ClipperError, MalformedRequest, NotImplementedYet, Overloaded, Unavailable
from clipper.frontend import limits
from clipper.frontend.port import Port
from clipper.frontend.rpc import bounds
from clipper.frontend.rpc.calls import BUG, Refused, held_bytes_of, refusal
from clipper.frontend.rpc.peers import hang_up
from clipper.frontend.rpc.protocols import REFLECTION, REFLECTION_ALPHA
from clipper.frontend.rpc.reads import Reads
from clipper.frontend.rpc.reflection import reflect
from clipper.frontend.rpc.service import METHODS, UNSUPPORTED_METHODS, WATCH, Caller, Services
from clipper.frontend.rpc.statuses import status_of
from clipper.frontend.rpc.wire import decode, encode
from clipper.tls.material import TlsMaterial

log = logging.getLogger(__name__)
# Of handlers' errors, which are caught and logged here, and of answers to clients that have left.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)

TOO_MANY_STREAMS = "too many streams are open: close some, or try again later"

Behaviour = Callable[[Any, Any], Awaitable[Any]]


class RpcServer:
    """Serves what ``Services`` do, on a port that the other workers share.

    Attributes:
        calls: how many have come.
        in_flight: how many of them have not been answered.
    """

    def __init__(self, port: Port, max_connections: int) -> None:
        self._port = port
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._services: Services | None = None
        self._server: Any = None
        self._address = ""
        self._most_message_bytes = 0
        self._renewing: asyncio.Task[None] | None = None
        self._tls: TlsMaterial | None = None
        self._reads = Reads(self._loop)
        self._draining = asyncio.Event()
        self._streams = 0
        self._infer_streams = 0
        self.calls = 0
        self.in_flight = 0

    def serve(self, services: Services) -> None:
        """Serve these from the next call on."""
        self._services = services
        # How long messages may be is said when a server is made; one that takes longer ones takes its place.
        if self._server is not None and services.most_message_bytes > self._most_message_bytes:
            self._renewing = asyncio.ensure_future(self._renew())

    def secure(self, material: TlsMaterial) -> None:
        """Meet connections by TLS; once it listens, from the next handshake on."""
        self._tls = material

    async def listen(self, host: str, port: int) -> None:
        """Start accepting.

        Raises:
            OSError: the port cannot be bound.
        """
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._server = await self._started()

    async def _started(self) -> Any:
        assert self._services is not None
        self._most_message_bytes = self._services.most_message_bytes
        self._reads.most_slow = max(self._port.budget.bound_bytes // self._most_message_bytes, 1)
        options = bounds.options(self._max_connections, self._most_message_bytes)
        server = aio.server(options=options, maximum_concurrent_rpcs=bounds.MAX_CALLS)
        server.add_generic_rpc_handlers((_Methods(self._handlers()),))
        try:
            if self._tls is None:
                server.add_insecure_port(self._address)
            else:
                server.add_secure_port(self._address, self._credentials(self._tls))
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await server.start()
        return server

    async def _renew(self) -> None:
        try:
            before, self._server = self._server, await self._started()
        except OSError as error:
            log.error("messages stay shorter than applications take: cannot listen again: %s", error)
            return
        # Its clients connect anew, by themselves.
        await before.stop(bounds.RENEWAL_GRACE_S)

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, answer what is under way, close. Returns how many calls had to be given up."""
        self._draining.set()
        if self._server is None:
            return 0
        if self._renewing is not None:
            self._renewing.cancel()
        stopping = asyncio.ensure_future(self._server.stop(timeout_s))
        await asyncio.wait([stopping], timeout=max(timeout_s - bounds.STOP_MARGIN_S, 0))
        left = self.in_flight
        await stopping
        return left

    def _credentials(self, material: TlsMaterial) -> Any:
        told = material

        def newer() -> Any:
            """What is to be shown from this handshake on, if that has changed; called by a thread of grpc's."""
            nonlocal told
            if self._tls is None or self._tls == told:
                return None
            told = self._tls
            return _configuration(told)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(material), newer, require_client_authentication=material.client_ca is not None
        )

    # -- methods -------------------------------------------------------------------------------------------

    def _handlers(self) -> dict[str, Any]:
        # Requests are read as streams, so that a call can be refused and bounded before its message is there.
        assert self._services is not None
        unary = {path: grpc.stream_unary_rpc_method_handler(self._unary(path)) for path in self._services.unary}
        unary |= {
            path: grpc.stream_unary_rpc_method_handler(self._unsupported(why))
            for path, why in UNSUPPORTED_METHODS.items()
        }
        streams: dict[str, Behaviour] = {METHODS["ModelStreamInfer"].path: self._stream_infer, WATCH.path: self._watch}
        for file in (REFLECTION, REFLECTION_ALPHA):
            streams[file.services[0].methods["ServerReflectionInfo"].path] = self._reflect
        return unary | {
            path: grpc.stream_stream_rpc_method_handler(self._stream(behaviour)) for path, behaviour in streams.items()
        }

    def _unary(self, path: str) -> Behaviour:
        async def answer(_: Any, context: Any) -> bytes:
            self.calls += 1
            self.in_flight += 1
            try:
                message = await self._message(context)
                assert self._services is not None
                reply = await self._services.unary[path](message, self._caller(context))
                self._port.freed_large_body |= len(message) > limits.LARGE_BODY_BYTES
                self._hold(context, reply)
                return reply
            except Exception as error:  # noqa: BLE001  see _fail
                return await self._fail(context, error)
            finally:
                self.in_flight -= 1

        return answer

    def _unsupported(self, why: str) -> Behaviour:
        async def refuse(_: Any, context: Any) -> NoReturn:
            await self._fail(context, NotImplementedYet(why))

        return refuse

    async def _message(self, context: Any) -> bytes:
        """The one message of a call.

        Raises:
            MalformedRequest: there is none.
            RequestTimeout, Overloaded: it does not come in time.
        """
        message = await self._reads.read(context.read())
        if not isinstance(message, bytes):
            if context.cancelled():
                raise asyncio.CancelledError
            raise MalformedRequest("the call has no message")
        return message

    def _caller(self, context: Any) -> Caller:
        shown = [
            value.encode() if isinstance(value, str) else value
            for name, value in context.invocation_metadata() or ()
            if name == "authorization"
        ]
        left_s = context.time_remaining()
        return Caller(shown, None if left_s is None else self._loop.time() + left_s)

    def _hold(self, context: Any, reply: bytes) -> None:
        """Count a large answer until its client has taken it, for which there is a time.

        Raises:
            Overloaded: there is no room for it.
        """
        held_bytes, budget = held_bytes_of(reply), self._port.budget
        if not held_bytes:
            return
        if not budget.has_room(held_bytes):
            raise Overloaded(
                "answers that clients have not read hold as much memory as they may: try again in a moment",
            )
        budget.held_bytes += held_bytes
        timer = self._hang_up_later(context)

        def let_go(_: Any) -> None:
            timer.cancel()
            budget.held_bytes -= held_bytes
            self._port.freed_large_body |= held_bytes > limits.LARGE_BODY_BYTES

        context.add_done_callback(let_go)

    def _hang_up_later(self, context: Any) -> asyncio.TimerHandle:
        """Hang up on a client that does not take an answer; to cancel the call would not free what grpc holds of it."""
        return self._loop.call_later(limits.REQUEST_TIMEOUT_SWEEPS * limits.SWEEP_S, hang_up, context.peer())

    async def _fail(self, context: Any, error: Exception) -> NoReturn:
        """End a call with an error. A bug costs one call, tells its client, and is in the log."""
        if isinstance(error, aio.BaseError):  # the client has left
            raise error
        if isinstance(error, ClipperError):
            refused = refusal(error)
            self._port.count_refused(refused.code)
        elif isinstance(error, Refused):  # counted where it arose
            refused = error
        else:
            log.error("a call could not be handled", exc_info=error)
            refused = Refused("internal_error", BUG)
        status = grpc.StatusCode[status_of(refused.code)]
        told = [("clipper-error", refused.code)]
        if refused.code in bounds.TO_TRY_AGAIN:
            told.append(("grpc-retry-pushback-ms", str(refused.retry_after_s * 1000)))
        await context.abort(status, str(refused)[: bounds.MAX_DETAILS_LENGTH], tuple(told))
        raise AssertionError("it raises")

    # -- streams -------------------------------------------------------------------------------------------

    def _stream(self, behaviour: Behaviour) -> Behaviour:
        async def answer(_: Any, context: Any) -> None:
            self.calls += 1
            if self._streams >= bounds.MAX_STREAMING_CALLS:
                await self._fail(context, Overloaded(TOO_MANY_STREAMS))
            self._streams += 1
            own = asyncio.ensure_future(behaviour(context, self._caller(context)))
            ending = asyncio.ensure_future(self._draining.wait())
            try:
                await asyncio.wait([own, ending], return_when=asyncio.FIRST_COMPLETED)
                if not own.done():
                    raise Unavailable("the worker is stopping: ask again")
                await own
            except Exception as error:  # noqa: BLE001  see _fail
                await self._fail(context, error)
            finally:
                self._streams -= 1
                own.cancel()
                ending.cancel()

        return answer

    async def _stream_infer(self, context: Any, caller: Caller) -> None:
        # Its messages may come whenever they like, and so may be on their way on all streams at once.
        if self._infer_streams >= self._reads.most_slow:
            raise Overloaded(TOO_MANY_STREAMS)
        self._infer_streams += 1
        try:
            while isinstance(message := await context.read(), bytes):
                await self._answer_in_stream(context, message)
        finally:
            self._infer_streams -= 1

    async def _answer_in_stream(self, context: Any, message: bytes) -> None:
        self.in_flight += 1
        try:
            assert self._services is not None
            reply = await self._services.infer_in_stream(message, self._caller(context))
        finally:
            self.in_flight -= 1
        timer = self._hang_up_later(context)
        try:
            await context.write(reply)
        finally:
            timer.cancel()

    async def _reflect(self, context: Any, caller: Caller) -> None:
        while isinstance(message := await self._reads.read(context.read()), bytes):
            await context.write(reflect(message))

    async def _watch(self, context: Any, caller: Caller) -> None:
        """Tell a service's health, and whenever it changes."""
        asked = decode(WATCH.request, memoryview(await self._message(context))).get("service", "")
        last = None
        while True:
            assert self._services is not None
            try:
                status = self._services.health(asked)
            except ClipperError:
                status = "SERVICE_UNKNOWN"
            if status != last:
                await context.write(encode(WATCH.reply, {"status": status}))
                last = status
            await asyncio.sleep(bounds.WATCH_EVERY_S)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)


def _configuration(material: TlsMaterial) -> Any:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)
