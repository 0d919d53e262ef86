"""The container's server: a thread that reads batches, calls the model and answers in order.

The model runs on this thread. Without a hand-over to another thread, an answer costs no more than the model and a few
system calls. ``health.Watcher`` answers the frames that must be answered while the model runs.
"""

import hmac
import logging
import os
import select
import signal
import socket
import time
from dataclasses import replace
from types import FrameType

from clipper.errors import ClipperError, ProtocolViolation
from clipper.model.model import LoadedModel
from clipper.model.protocol import messages
from clipper.model.protocol.columns import PredictColumns, decode_predict_columns
from clipper.model.protocol.frames import ASKS_VERSION, RECORDS_VERSION, RETOLD_VERSION, Kind
from clipper.model.protocol.messages import MAX_OUTPUTS_BYTES, Buffer, Predict, Welcome
from clipper.model.runtime.asking import ASKER
from clipper.model.runtime.connection import Connection
from clipper.model.runtime.evaluate import as_sent, bounded, evaluate
from clipper.model.runtime.health import BusyClock, Watcher, answer_watching
from clipper.model.runtime.inputs import input_reader
from clipper.model.runtime.outputs import Encoded, learn_type
from clipper.model.runtime.trace import tracing
from clipper.values.json_types import NoType
from clipper.values.records import RecordType

log = logging.getLogger("clipper.runtime")

# Enough for workers and supervisors, even if they dial again before their old connection is seen to close.
MAX_CONNECTIONS = 256
# How long to wait after SIGTERM for callers that are slow to take their last answer.
FLUSH_TIMEOUT_S = 5.0


class Server:
    """Serves a model on a listening socket until SIGTERM.

    Args:
        listener: non-blocking.
        token: the token that callers must send; if it is empty, they need none.
        max_output_bytes: the bound of an output; larger outputs fail their rows.
    """

    def __init__(
        self,
        model: LoadedModel,
        welcome: Welcome,
        listener: socket.socket,
        token: str = "",
        max_output_bytes: int = MAX_OUTPUTS_BYTES,
    ) -> None:
        self._predict_batch = model.predict_batch
        self._read_inputs = input_reader(model.input_type)
        self._welcome = welcome
        # The type is learned from the first answer, which may warm up the model, before workers hear of the container.
        self._has_to_learn = welcome.output_type is None
        self._token = token.encode()
        self._max_output_bytes = max_output_bytes
        self._listener = listener
        self._clock = BusyClock()
        self._watcher = Watcher(self._clock)
        self._connections: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._stopping = False
        # A signal makes the reader readable, which ends the wait for events.
        self._wake_writer, self._wake_reader = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM. Then finish the batch in hand, answer it, and return."""
        self._prepare()
        while not self._stopping:
            for fileno, events in self._epoll.poll():
                self._handle(fileno, events)
                if self._stopping:
                    break
        self._flush()

    def _prepare(self) -> None:
        for waking in (self._wake_writer, self._wake_reader):
            waking.setblocking(False)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        os.register_at_fork(after_in_child=self._close_in_child)
        self._epoll.register(self._wake_reader.fileno(), select.EPOLLIN)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _close_in_child(self) -> None:
        # A child that outlives this process must not keep callers' connections open.
        ASKER.forget()
        self._epoll.close()
        self._listener.close()
        self._watcher.close_in_child()
        for connection in self._connections.values():
            connection.close()

    def _handle(self, fileno: int, events: int) -> None:
        connection = self._connections.get(fileno)
        if connection is not None:
            self._serve(connection, events)
        elif fileno == self._listener.fileno():
            self._accept()
        elif fileno == self._wake_reader.fileno():
            # SIGTERM came, or a signal that the model or a library handles.
            self._wake_reader.recv(4096)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the caller has gone already
            return
        if len(self._connections) + len(self._watcher) >= MAX_CONNECTIONS and not self._drop_silent():
            log.warning(
                "connection refused: there are %(count)d already, which is the limit", {"count": MAX_CONNECTIONS}
            )
            accepted.close()
            return
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(accepted, time.monotonic())
        self._connections[connection.fileno] = connection
        self._epoll.register(connection.fileno, select.EPOLLIN)

    def _drop_silent(self) -> bool:
        """Drop the caller that is silent for longest, since callers send HELLO at once. Return whether there is one."""
        silent = [each for each in self._connections.values() if not each.greeted]
        if silent:
            self._drop(min(silent, key=lambda each: each.since_s))
        return bool(silent)

    def _drop(self, connection: Connection) -> None:
        del self._connections[connection.fileno]
        self._epoll.unregister(connection.fileno)
        connection.close()

    def _serve(self, connection: Connection, events: int) -> None:
        """Continue a connection that is readable, or that is writable while an answer waits."""
        try:
            if connection.has_unsent:
                if not connection.flush():
                    return
                self._epoll.modify(connection.fileno, select.EPOLLIN)
            elif not connection.receive():
                self._drop(connection)
                return
            self._answer_frames(connection)
        except (ProtocolViolation, OSError) as error:
            connection.complain(error)
            self._drop(connection)
        else:
            if connection.watches and not connection.has_unsent:
                del self._connections[connection.fileno]
                self._epoll.unregister(connection.fileno)
                self._watcher.take(connection)

    def _answer_frames(self, connection: Connection) -> None:
        for kind, frame_id, body in iter(connection.take, None):
            sent = self._answer(connection, kind, frame_id, body)
            if not sent:
                # Further frames wait until the caller has taken this answer, so that at most one answer is held.
                self._epoll.modify(connection.fileno, select.EPOLLOUT)
                return
            if self._stopping:
                return

    def _answer(self, connection: Connection, kind: int, frame_id: int, body: Buffer) -> bool:
        """Answer a frame; return False if a part of the answer waits."""
        if not connection.greeted:
            return self._greet(connection, kind, body)
        if connection.watches is None:
            connection.watches = kind == Kind.PING
        version = connection.version
        if kind == Kind.PREDICT and not connection.watches:
            answer = self._predict(connection, frame_id, messages.decode_predict(body, version))
        elif kind == Kind.PREDICT_COLUMNS and not connection.watches and version >= RECORDS_VERSION:
            answer = self._predict(connection, frame_id, decode_predict_columns(body))
        elif kind == Kind.ANSWER and version >= ASKS_VERSION:
            return True  # the batch that asked is over
        else:
            return connection.send(answer_watching(kind, frame_id, busy_us=0))
        if not connection.is_told and self._knows_outputs and version >= RETOLD_VERSION:
            connection.is_told = True
            answer = messages.encode_welcome(replace(self._welcome, protocol=version)) + answer
        return connection.send(answer)

    @property
    def _knows_outputs(self) -> bool:
        return self._welcome.output_type is not None or self._welcome.output_is_untyped

    def _greet(self, connection: Connection, kind: int, body: Buffer) -> bool:
        if kind != Kind.HELLO:
            raise ProtocolViolation(f"caller began with a frame of kind {kind}: expected HELLO")
        hello = messages.decode_hello(body)
        if self._token and not hmac.compare_digest(hello.token.encode(), self._token):
            raise ProtocolViolation("token is not the one that this container was started with")
        if hello.version < RECORDS_VERSION and isinstance(self._welcome.input_type, RecordType):
            raise ProtocolViolation(
                f"{self._welcome.model}:{self._welcome.version} takes records, which need protocol {RECORDS_VERSION}: "
                f"the caller speaks {hello.version}; use a newer Clipper"
            )
        connection.accept_hello(hello.version)
        connection.is_told = self._knows_outputs
        welcome = replace(self._welcome, protocol=hello.version)
        if hello.version < RECORDS_VERSION and isinstance(welcome.output_type, RecordType):
            welcome = replace(welcome, output_type=None, output_is_declared=False)
        return connection.send(messages.encode_welcome(welcome))

    def _predict(self, connection: Connection, batch_id: int, batch: Predict | PredictColumns) -> bytes:
        started_ns = self._clock.start()
        ASKER.begin(connection, batch_id)
        try:
            predict_batch = tracing(self._predict_batch, batch.trace) if batch.trace else self._predict_batch
            encoded = evaluate(predict_batch, lambda: self._read_inputs(batch))
            encoded = bounded(encoded, batch.rows, self._max_output_bytes)
            sent = as_sent(encoded, connection.version)
        except (ClipperError, MemoryError) as error:
            self._clock.stop(started_ns)
            log.warning("batch of %(rows)d failed: %(error)s", {"rows": batch.rows, "error": error})
            return messages.encode_error(batch_id, str(error) or "out of memory")
        finally:
            ASKER.end()
        evaluation_us = self._clock.stop(started_ns)
        if self._has_to_learn and not encoded.failures:
            self._learn(encoded)
        return sent.frame(batch_id, batch.rows, evaluation_us)

    def _learn(self, encoded: Encoded) -> None:
        """Learn the type of outputs, or that they have none. An answer that shows neither leaves it to the next one."""
        try:
            learned, is_untyped = learn_type(encoded), False
        except NoType:
            learned, is_untyped = None, True
        self._has_to_learn = learned is None and not is_untyped
        self._welcome = replace(self._welcome, output_type=learned, output_is_untyped=is_untyped)

    def _flush(self) -> None:
        """Let callers take the answers that wait, for a bounded time."""
        until_s = time.monotonic() + FLUSH_TIMEOUT_S
        with select.epoll() as epoll:
            waiting = {each.fileno: each for each in self._connections.values() if each.has_unsent}
            for fileno in waiting:
                epoll.register(fileno, select.EPOLLOUT)
            while waiting and (left_s := until_s - time.monotonic()) > 0:
                for fileno, _ in epoll.poll(left_s):
                    if _flushed(waiting[fileno]):
                        epoll.unregister(fileno)
                        del waiting[fileno]


def _flushed(connection: Connection) -> bool:
    """Send the waiting answers. Return whether nothing is left, because all was sent or the caller has gone."""
    try:
        return connection.flush()
    except OSError as error:
        connection.complain(error)
        return True
