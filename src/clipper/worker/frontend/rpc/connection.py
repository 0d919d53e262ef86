"""A client's connection to the gRPC port: passes bytes between its transport and its session."""

import asyncio
from collections import deque
from itertools import islice
from typing import cast

from clipper.base.turn_budget import RESTS, VISIT_S, Backlog
from clipper.errors import NotImplementedYet, Overloaded
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import NO_ROOM, Untaken
from clipper.worker.frontend.http.giving_way import GivingWay, slow_from_s
from clipper.worker.frontend.http.long_writing import dropped
from clipper.worker.frontend.http.port import Port, address_of, has_gone
from clipper.worker.frontend.http.waiting_input import Held
from clipper.worker.frontend.long_work import Steps
from clipper.worker.frontend.rpc import bounds
from clipper.worker.frontend.rpc.behaviours import STOPPING, Shared, UnaryCall, Watch
from clipper.worker.frontend.rpc.conversation import STREAM_INFER, Conversation
from clipper.worker.frontend.rpc.protocols import REFLECTION, REFLECTION_ALPHA
from clipper.worker.frontend.rpc.service import WATCH
from clipper.worker.frontend.rpc.session import ENHANCE_YOUR_CALM, NO_ERROR, Session
from clipper.worker.frontend.rpc.stream import Behaviour, Stream

_REFLECTIONS = frozenset(
    file.services[0].methods["ServerReflectionInfo"].path for file in (REFLECTION, REFLECTION_ALPHA)
)
_STREAMING = _REFLECTIONS | {STREAM_INFER, WATCH.path}


class Server(Shared):
    """The common state of the connections to a gRPC port.

    Attributes:
        connections: the open connections, in the order in which they were made.
        giving_way: decides which of them gives way to a new connection when there are too many.
    """

    # Clients' input may wait, and its calls know when it came.
    slo_s = float("inf")

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.connections: dict[RpcConnection, None] = {}
        self.giving_way = GivingWay[RpcConnection](self.connections, lambda member: member.gives_way_from_s)


class RpcConnection(asyncio.Protocol):
    """A ``Member`` of the port, like a connection of HTTP/1.1, and the host of its session."""

    def __init__(self, shared: Server) -> None:
        self._shared = shared
        self._port = port = shared.port
        self._session = Session(self, port.budget, port.refused)
        self._call_soon = asyncio.get_running_loop().call_soon
        self._flush_is_due = False
        self._reading_paused = False
        self._writing_paused = self._writes_long = False
        self.untaken = Untaken(port.budget)
        self.is_going = False
        self._held = Held(port.budget, port.turn, self._take_held, port.now_s())
        self._later = Backlog[Conversation](port.turn, Conversation.go_on, line=RESTS, in_turns=True)
        self._has_eof = self._has_ended = False
        self._piece_bytes = bounds.FIRST_PIECE_BYTES
        self._last_sweep = self._began_sweep = self._pinged_sweep = port.sweeps
        self._session.last_call_sweep = port.sweeps

    # -- asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._port.watch is not None:
            self._session.client = address_of(transport)
        shared = self._shared
        has_room = self._port.add(self)
        if has_room and len(shared.connections) >= bounds.MAX_CONNECTIONS:
            has_room = self._port.make_room(1, shared.giving_way) > 0
        shared.connections[self] = None
        if not has_room:
            self._port.refused["overloaded"] += 1
            self._session.terminate(ENHANCE_YOUR_CALM)
        elif self._port.is_draining:
            self._session.terminate(NO_ERROR)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._port.remove(self)
        self._shared.connections.pop(self, None)
        self._has_ended = True
        self._held.end()
        self._session.close()
        if self.untaken.size_bytes > limits.LARGE_BODY_BYTES:
            self._port.freed_large_body = True
        del self._session  # it refers back to this object; thousands of such cycles would make the collector stall
        self.untaken.count(0, self._port.sweeps)

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            return
        self._last_sweep = self._port.sweeps
        held = self._held
        if held.data:
            self._hold(held.data[held.start :] + data, 0)
            return
        held.arrived_s = now_s = self._port.now_s()
        if not self._writing_paused and self._port.turn.is_open(now_s):
            self._take(data, 0)
        else:
            held.arrived_s, held.is_rest = self._port.turn.arrived_s(now_s), False
            self._hold(data, 0)

    def eof_received(self) -> bool:
        """Answer the client's calls, then close: it sends no more but may still read."""
        if self._has_ended or not self.is_busy:
            return False
        self._has_eof = True
        if not self._held.data:
            self._session.begin_end()
            self._flush()
        return True

    def pause_writing(self) -> None:
        """Stop reading from the client, and writing to it: it does not read."""
        self._writing_paused = True
        self._adjust_reading()
        self._look_at_untaken()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._flush()
        if self._held.data and not self._has_ended:
            self._wait()
        self._adjust_reading()

    # -- input ---------------------------------------------------------------------------------------------

    def _take(self, data: bytes, start: int) -> None:
        """Pass input on for a while. The rest waits for its turn behind that of other connections."""
        port, session = self._port, self._session
        now_s = port.now_s()
        end_s = now_s + VISIT_S
        while start < len(data):
            piece = data[start : start + self._piece_bytes]
            self._flush_is_due = True
            session.receive(piece, self._held.arrived_s, port.sweeps)
            self._flush()
            start += len(piece)
            before_s, now_s = now_s, port.now_s()
            self._piece_bytes = bounds.next_piece_bytes(self._piece_bytes, len(piece), now_s - before_s)
            if start < len(data) and (self._writing_paused or now_s >= end_s):
                self._held.is_rest = True
                self._hold(data, start)
                return
        if self._has_eof:
            session.begin_end()
            self._flush()

    def _take_held(self, data: bytes, start: int) -> None:
        if self._has_ended:
            return
        if self._writing_paused:
            self._hold(data, start)
            return
        if data:
            self._take(data, start)
        self._adjust_reading()

    def _hold(self, data: bytes, start: int) -> None:
        self._held.set(data, start)
        if not self._port.budget.has_room(0):
            self._port.refused["overloaded"] += 1
            self._session.terminate(ENHANCE_YOUR_CALM)
            self._held.set(b"", 0)
            self._flush()
        elif not self._writing_paused:
            self._wait()
        self._adjust_reading()

    def _wait(self) -> None:
        # The input may have queries: once it is split into calls, each waits for its application's turn.
        self._held.wait(self._shared)

    def _adjust_reading(self) -> None:
        should_pause = self._writing_paused or self._held.size_bytes > limits.READ_AHEAD_BYTES
        if should_pause == self._reading_paused or self.transport.is_closing():
            return
        self._reading_paused = should_pause
        (self.transport.pause_reading if should_pause else self.transport.resume_reading)()

    # -- the session's host --------------------------------------------------------------------------------

    @property
    def most_message_bytes(self) -> int:
        return self._shared.services.most_message_bytes

    def begin(self, stream: Stream) -> Behaviour:
        shared, path = self._shared, stream.head.path
        counts = shared.counts
        counts.calls += 1
        if counts.open >= bounds.MAX_CALLS:
            share = bounds.MAX_CALLS // len(shared.connections)
            if len(self._session.streams) > share:  # then it is this client's turn to wait
                share = bounds.MAX_STREAMS
            if not any(call.make_room(share) for call in list(islice(counts.arriving, bounds.LOOKED_AT))):
                raise Overloaded(f"{bounds.MAX_CALLS} calls are open: try again in a moment")
        if path in shared.services.unary:
            return UnaryCall(stream, shared)
        if path not in _STREAMING:
            raise NotImplementedYet(f"method {path[:200]!r} is not known: reflection lists the known ones")
        if counts.streaming >= bounds.MAX_STREAMING_CALLS:
            raise Overloaded("too many streams are open: close some, or try again later")
        if self._port.is_draining:
            raise STOPPING
        return Watch(stream, shared) if path == WATCH.path else Conversation(stream, shared, self._later)

    def has_room(self, size_bytes: int) -> bool:
        # The answers of this turn of the loop are not counted yet.
        uncounted_bytes = self._session.unsent_bytes - self.untaken.size_bytes
        if self._port.budget.has_room(size_bytes + max(uncounted_bytes, 0)):
            return True
        self._port.shed(limits.SLOW_SWEEPS)
        return False

    def on_output(self) -> None:
        """Write soon, so that the answers of a batch go out together."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self._call_soon(self._flush)

    def on_large_freed(self, rest: deque[bytes | memoryview] | None = None) -> None:
        self._port.freed_large_body = True
        if rest:
            self._port.work.do(dropped(rest))

    # -- output --------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._has_ended:
            return
        session = self._session
        if not self._writes_long and not self._write_piece():
            # A client that reads as fast as this connection writes must not get a long answer in a single turn.
            self._writes_long = True
            self._port.work.do(self._write_long())
        if self._writing_paused or self.untaken.size_bytes or session.unsent_bytes:
            self._look_at_untaken()
        if session.is_over and not self._writing_paused and not self._writes_long:
            self._finish_writing()

    def _write_piece(self) -> bool:
        """Write at most a piece of the output. Return whether that was all that can be written now."""
        if self._has_ended or self._writing_paused or self.transport.is_closing():
            return True
        data = self._session.data_to_send()
        if data:
            self.transport.write(data)
        return len(data) < bounds.WRITE_PIECE_BYTES or self._writing_paused

    def _write_long(self) -> Steps:
        while not self._write_piece():
            yield
        self._writes_long = False
        self._flush()

    def _look_at_untaken(self) -> None:
        """Count the answers that the client has not read. If memory is short, the port disconnects the slowest."""
        if self.is_going:
            return
        size_bytes = self._session.unsent_bytes + self.transport.get_write_buffer_size()
        if self.untaken.size_bytes - size_bytes > limits.LARGE_BODY_BYTES:
            self._port.freed_large_body = True
        self.untaken.count(size_bytes, self._port.sweeps)
        if not self._port.budget.has_room(0):
            self._port.shed(0)

    def cut_off(self) -> None:
        """Close at once. Unread answers are released when the connection is lost."""
        self.is_going = True
        self.transport.abort()

    def _finish_writing(self) -> None:
        """Send EOF after the last output, and let the sweep close once the client has had time to read."""
        self._has_ended = True
        self._last_sweep = self._port.sweeps
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    # -- the server ----------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether input or a call waits for its answer, or an answer waits for its client."""
        return bool(self._held.data or self._session.streams) or self._session.unsent_bytes > 0

    @property
    def gives_way_from_s(self) -> float | None:
        if self._has_ended or self._held.data or self._session.unsent_bytes or self.transport.get_write_buffer_size():
            return None
        streams = list(self._session.streams.values())
        if not streams:
            return self._held.gives_way_from_s
        is_arriving = all(stream.is_arriving for stream in streams)
        return slow_from_s(streams[0].began_s, streams[0].arriving_bytes) if is_arriving else None

    def give_way(self) -> None:
        """Tell the client that none of its calls was asked, and end."""
        for stream in list(self._session.streams.values()):
            stream.fail(Overloaded("all connections are taken, and this call's message arrives too slowly: try later"))
        self._flush()  # the end would overtake the answers
        self._session.terminate(NO_ERROR)
        self._flush()

    @property
    def arrives_from_s(self) -> float | None:
        first = self._first_arriving()
        return None if first is None else first.began_s

    def stop_arriving(self) -> None:
        first = self._first_arriving()
        if first is not None:
            first.fail(Overloaded(NO_ROOM))

    def _first_arriving(self) -> Stream | None:
        streams = () if self._has_ended else self._session.streams.values()
        return next((stream for stream in streams if stream.arriving_bytes), None)

    def announce_end(self) -> None:
        """Ask the client to call another worker, since this one drains; and end calls that would go on for ever."""
        self._session.announce_end()
        for stream in list(self._session.streams.values()):
            if stream.behaviour is not None:
                stream.behaviour.stop()
        self._flush()

    def begin_end(self) -> None:
        self._session.begin_end()
        self._flush()

    def sweep(self, sweeps: int) -> None:
        """End a connection or call that takes too long. Called once a second."""
        session = self._session
        quiet = sweeps - self._last_sweep
        if self._has_ended:
            if quiet > limits.LINGER_SWEEPS:
                self.transport.close()
            return
        if (self._reading_paused or self._has_eof) and has_gone(self.transport):
            self.transport.abort()  # the loop does not look at a connection that it does not read
            return
        if self.untaken.size_bytes:
            self._look_at_untaken()
            if sweeps - self.untaken.last_taken_sweep > limits.REQUEST_TIMEOUT_SWEEPS:
                self.transport.abort()
                return
        if not session.has_begun:
            if sweeps - self._began_sweep > bounds.PREFACE_SWEEPS:
                self.transport.close()
            return
        if session.streams:
            if quiet >= bounds.KEEPALIVE_SWEEPS:
                if self._pinged_sweep <= self._last_sweep:  # not since it went quiet
                    self._pinged_sweep = sweeps
                    session.ping()
                elif sweeps - self._pinged_sweep > bounds.KEEPALIVE_TIMEOUT_SWEEPS:
                    self.transport.abort()
                    return
            self._flush_is_due = True
            session.sweep(self._port.now_s(), sweeps)
            self._flush()
        elif sweeps - session.last_call_sweep > limits.IDLE_TIMEOUT_SWEEPS:
            session.terminate(NO_ERROR)
            self._flush()
