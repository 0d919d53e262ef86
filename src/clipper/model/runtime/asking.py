"""Lets a model ask an application of its server while it evaluates a batch.

An ask goes out on the connection of the batch, and its answer comes back there. The loop does not read meanwhile,
since the model runs on its thread. So the thread that asks reads; of several threads one reads for all. Whatever else
comes is set aside for the loop.
"""

import json
import threading
import time
from itertools import count
from typing import Any

import numpy as np

from clipper.errors import (
    KINDS,
    ClipperError,
    DeadlineExceeded,
    ModelFailed,
    NotImplementedYet,
    Overloaded,
    ProtocolViolation,
    Unavailable,
    WrongInput,
)
from clipper.model.model import Array
from clipper.model.protocol.asks import (
    CANNOT_ASK,
    MAX_ASK_BYTES,
    MAX_ASK_ROWS,
    MAX_OPEN_ASKS,
    Refusal,
    decode_answer,
    encode_ask,
)
from clipper.model.protocol.columns import BatchResults
from clipper.model.protocol.frames import ASKS_VERSION, Kind
from clipper.model.protocol.messages import Buffer, Results
from clipper.model.runtime.connection import Connection
from clipper.model.runtime.named_outputs import by_name
from clipper.model.runtime.outputs import encode_outputs
from clipper.values.output_arrays import TypedResults
from clipper.values.types import check_name

# A worker answers by the deadline of the batch. This bounds the wait for one that is stopped and does not end.
MAX_WAIT_S = 60.0
# A thread that waits for an answer notices this late that its batch is over.
LOOK_EVERY_S = 0.5
# Frames that came while a model waited. A worker sends a few batches before their answers.
MAX_SET_ASIDE = 64


class AskedModelFailed(ModelFailed):
    """Says that a model which was asked failed: that is no breach of the asking model's own contract."""


class _Batch:
    """The batch that is evaluated.

    Attributes:
        answers: by ask, its answer; None until it has come.
        given_up: the asks whose answers nobody waits for. They count as open, so that the caller is not flooded.
        is_read: whether a thread waits for what comes.
    """

    __slots__ = ("answers", "connection", "given_up", "id", "is_read")

    def __init__(self, connection: Connection, batch_id: int) -> None:
        self.connection, self.id = connection, batch_id
        self.answers: dict[int, BatchResults | Refusal | None] = {}
        self.given_up: set[int] = set()
        self.is_read = False


class Asker:
    """The asks of a process. The loop says which batch is evaluated; ``ask`` may be called on any thread."""

    def __init__(self) -> None:
        self._batch: _Batch | None = None
        self._ids = count(1)
        self.forget()

    def begin(self, connection: Connection, batch_id: int) -> None:
        self._batch = _Batch(connection, batch_id)

    def end(self) -> None:
        """End the batch. A thread that still waits for an answer gets an error."""
        with self._changed:
            self._batch = None
            self._changed.notify_all()

    def forget(self) -> None:
        """Begin anew in a child process, in which no thread waits that may have held the lock."""
        self._changed = threading.Condition()
        self._batch = None

    def ask(self, application: str, frame: bytes, timeout_s: float | None) -> BatchResults:
        """Ask with a frame of results, and wait for the answer. Raises ``ClipperError`` if there is none."""
        wait_s = MAX_WAIT_S if timeout_s is None else min(timeout_s, MAX_WAIT_S)
        until_s = time.monotonic() + wait_s
        with self._changed:
            batch = self._batch
            if batch is None:
                raise Unavailable("no batch is being evaluated: call ask inside predict_batch, before it returns")
            if batch.connection.version < ASKS_VERSION:
                raise NotImplementedYet(
                    f"{CANNOT_ASK}: it speaks version {batch.connection.version} of the container protocol, and asks "
                    f"need {ASKS_VERSION}. It is a query worker of an older Clipper, or warms up the container"
                )
            if batch.given_up and not batch.is_read:
                self._take_in(batch)
            if len(batch.answers) + len(batch.given_up) >= MAX_OPEN_ASKS:
                raise Overloaded(f"this batch has {MAX_OPEN_ASKS} unanswered asks already: wait for an answer first")
            ask_id = next(self._ids)
            timeout_us = 0 if timeout_s is None else max(1, int(1e6 * wait_s))
            batch.answers[ask_id] = None
            try:
                batch.connection.send(encode_ask(ask_id, batch.id, timeout_us, application, frame))
                while (answer := batch.answers[ask_id]) is None:
                    self._wait(batch, until_s)
            except OSError as error:
                raise Unavailable(f"the query worker cannot be reached: {error}") from error
            finally:
                if batch.answers.pop(ask_id) is None:
                    batch.given_up.add(ask_id)
        if isinstance(answer, Refusal):
            kind = AskedModelFailed if answer.code == ModelFailed.code else KINDS.get(answer.code, ClipperError)
            raise kind(answer.message)
        return answer

    def _wait(self, batch: _Batch, until_s: float) -> None:
        """Wait until something has happened."""
        left_s = until_s - time.monotonic()
        if self._batch is not batch:
            raise Unavailable("the batch that it was asked for is over")
        if left_s <= 0:
            raise DeadlineExceeded("no answer came in time")
        if batch.is_read:
            self._changed.wait(left_s)
            return
        batch.is_read = True
        self._changed.release()
        try:
            batch.connection.wait(min(left_s, LOOK_EVERY_S))
        finally:
            self._changed.acquire()
            batch.is_read = False
            self._changed.notify_all()
        if self._batch is batch:
            self._take_in(batch)

    def _take_in(self, batch: _Batch) -> None:
        connection = batch.connection
        if connection.has_unsent:
            connection.flush()
        if not connection.receive():
            raise Unavailable("the query worker has closed the connection")
        for frame in connection.frames:
            kind, frame_id, body = frame
            if kind != Kind.ANSWER:
                if len(connection.set_aside) >= MAX_SET_ASIDE:
                    connection.cut()
                    raise ProtocolViolation(f"over {MAX_SET_ASIDE} frames came while a model waited for an answer")
                connection.set_aside.append(frame)
            elif frame_id in batch.answers:
                batch.answers[frame_id] = _decoded(body)
            else:
                batch.given_up.discard(frame_id)


def _decoded(body: Buffer) -> BatchResults | Refusal:
    try:
        return decode_answer(body)
    except ClipperError as error:
        return Refusal(error.code, f"the answer cannot be read: {error}")


ASKER = Asker()


def ask(name: str, rows: Any, deadline: float | None = None) -> Array | list[Any]:
    """Ask an application of the server for an output for each row, while this model evaluates a batch.

    The application has the time that the queries of the batch leave for its answer: their deadline, less the time
    that the rest of the batch has taken lately. Call it inside ``predict_batch``, or on a thread that ends before.

    Args:
        name: the application, which has a policy, versions and a cache as for any other query. ``clipper serve`` makes
            one of the model's name.
        rows: its inputs, at most 16,384: an array, a list, or records as a dict of columns, a frame or a list of dicts.
        deadline: seconds from now after which no answer is needed, if that is sooner.

    Returns:
        One array if all outputs are arrays of one type and shape, else a list: of numbers, texts, lists and dicts.

    Raises:
        ClipperError: a row has no answer. ``code`` says why: ``timeout``, ``overloaded``, ``no_replica``,
            ``unavailable``, ``not_found``, ``wrong_input``, ``model_error``; ``conflict`` for a circle of asks;
            ``not_implemented`` if the query worker is of a Clipper without asks.
    """
    check_name("application", name)
    if deadline is not None and not deadline > 0:
        raise DeadlineExceeded(f"{name}: the deadline was {deadline} s from now: expected more than 0")
    try:
        named = by_name(rows) if not isinstance(rows, str | bytes) else None
    except ModelFailed as error:
        raise WrongInput(f"{name} was asked with rows that cannot be sent: {error}") from error
    values = next(iter(named.values()), ()) if named is not None else rows
    if isinstance(rows, str | bytes) or not hasattr(values, "__len__"):
        raise WrongInput(f"{name} was asked with a {type(rows).__name__}: expected a list of inputs, or an array")
    number = len(values)
    if number > MAX_ASK_ROWS:
        raise WrongInput(f"{name} was asked with {number} rows: expected at most {MAX_ASK_ROWS}; ask in parts")
    if not number:
        return []
    answer = ASKER.ask(name, _encoded(name, rows, number), deadline)
    if isinstance(answer, TypedResults) and answer.rows == number:
        array = np.frombuffer(answer.data, np.dtype(answer.form.dtype.numpy_code))
        return array.reshape(number, *answer.form.shape).copy()
    if isinstance(answer, Results) and answer.rows == number:
        return [json.loads(bytes(output)) for output in answer.outputs]
    raise ProtocolViolation(f"the query worker answered {answer.rows} outputs for {number} rows")


def _encoded(name: str, rows: Any, number: int) -> bytes:
    try:
        encoded = encode_outputs(rows, number)
    except ModelFailed as error:
        raise WrongInput(f"{name} was asked with rows that cannot be sent: {error}") from error
    for row, message in sorted(encoded.failures.items()):
        raise WrongInput(f"{name} was asked with rows that cannot be sent: row {row}: {message}")
    frame = encoded.frame(0, number)
    if len(frame) > MAX_ASK_BYTES:
        raise WrongInput(f"{name} was asked with {len(frame)} bytes: expected at most {MAX_ASK_BYTES}; ask in parts")
    return frame
