"""A model asks while it evaluates a batch: the container's half, against a caller that answers as it likes."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import clipper
from clipper.errors import ClipperError
from clipper.model.protocol import messages
from clipper.model.protocol.asks import ASK_FAILED, MAX_OPEN_ASKS, Ask, answer_frame, decode_ask
from clipper.model.protocol.columns import ColumnResults
from clipper.model.protocol.frames import ASKS_VERSION, Kind
from clipper.model.protocol.messages import Results
from clipper.model.protocol.typed import encode_typed_results
from clipper.model.runtime.asking import MAX_SET_ASIDE
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.types import DType
from tests.model.runtime.caller import Caller, Container, code, running

# Answers what it was answered, or how that failed. A test says in ``ROWS`` with what it asks.
ASKING = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import clipper

def told(name, rows, **fields):
    try:
        found = clipper.ask(name, rows, **fields)
    except Exception as error:
        return f"{getattr(error, 'code', '?')}: {error}"
    return [str(found.dtype), found.tolist()] if isinstance(found, np.ndarray) else found

def late():
    global left
    left = told("late", ["x"])

def model(inputs):
    global thread
    what = inputs[0][0]
    if what == 1: return [[told("first", ["a", "b"]), told("second", [{"x": 1, "y": "z"}])]] * len(inputs)
    if what == 2:
        with ThreadPoolExecutor(8) as pool:
            return [list(pool.map(lambda number: told(f"app{number}", [number]), range(8)))] * len(inputs)
    if what == 3: return [told("slow", ["x"], deadline=0.05)] * len(inputs)
    if what == 4:
        thread = threading.Thread(target=late)
        thread.start()
        return [0] * len(inputs)
    if what == 5:
        thread.join()
        return [left] * len(inputs)
    if what == 6:
        pid = os.fork()
        if pid == 0:
            found = told("child", ["x"])
            os._exit(0 if found.startswith("unavailable: no batch is") else 1)
        return [os.waitpid(pid, 0)[1]] * len(inputs)
    if what == 7: clipper.ask("gone", ["x"])
    if what == 9: return [[told("slow", ["x"], deadline=1e-4) for _ in range(9)] + [told("last", ["x"])]] * len(inputs)
    if what == 10: return [told("slow", ["x"], deadline=float("inf"))] * len(inputs)
    if what == 8: return [told("large", np.arange(2_000_000.0).reshape(2, -1))] * len(inputs)
    return [float(row.sum()) for row in inputs]

try:
    clipper.ask("early", ["x"])
except Exception as error:
    print("while it loads:", error, flush=True)
"""


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("asking")
    with running(folder, *code(folder, ASKING), "--input-type", "float64[1]") as container:
        yield container


@contextmanager
def calling(container: Container, version: int = ASKS_VERSION) -> Iterator[Caller]:
    with container.caller(version=version) as caller:
        yield caller


def send(caller: Caller, what: float, batch_id: int = 1) -> None:
    caller.send(batch_id, DType.FLOAT64, [np.array([float(what)]).tobytes()])


def asked(caller: Caller) -> tuple[int, Ask]:
    kind, ask_id, body = caller.read()
    assert kind == Kind.ASK
    return ask_id, decode_ask(body)


def answer(caller: Caller, ask_id: int, *outputs: bytes) -> None:
    results = messages.encode_results(ask_id, len(outputs), b"\n".join(outputs))
    caller.socket.sendall(b"".join(answer_frame(ask_id, [results])))


def refuse(caller: Caller, ask_id: int, message: str) -> None:
    caller.socket.sendall(b"".join(answer_frame(ask_id, [messages.encode_error(ask_id, message)])))


def results(caller: Caller, skip: int = 0) -> Any:
    """The batch's answer; ``skip`` asks come before."""
    for _ in range(skip):
        asked(caller)
    kind, _, body = caller.read()
    if kind == Kind.WELCOME:
        kind, _, body = caller.read()
    assert kind == Kind.RESULTS, bytes(body)
    found = messages.decode_results(body)
    return found.failures[0] if found.failures else json.loads(bytes(found.outputs[0]))


def test_rows_and_outputs_keep_their_form(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 1, batch_id=5)
        ask_id, ask = asked(caller)
        assert (ask.batch_id, ask.timeout_us, ask.application) == (5, 0, "first")
        assert isinstance(ask.rows, Results) and list(ask.rows.outputs) == [b'"a"', b'"b"']
        array = np.array([[1.5, -2], [0, 8]], "<f4")
        typed = encode_typed_results(0, 2, OutputForm(DType.FLOAT32, (2,), DType.FLOAT64), array.tobytes())
        caller.socket.sendall(b"".join(answer_frame(ask_id, [typed])))
        ask_id, ask = asked(caller)
        assert isinstance(ask.rows, ColumnResults) and [one.name for one in ask.rows.columns] == ["x", "y"]
        answer(caller, ask_id, b'{"label": "a", "p": [0.5]}')
        assert results(caller) == [["float32", array.tolist()], [{"label": "a", "p": [0.5]}]]


def test_threads_of_a_model_ask_at_the_same_time_and_batches_wait(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 2)
        asks = [asked(caller) for _ in range(8)]
        assert {ask.application for _, ask in asks} == {f"app{number}" for number in range(8)}
        send(caller, 0.5, batch_id=2)
        caller.socket.sendall(messages.encode_ping(3))
        for ask_id, ask in reversed(asks):
            answer(caller, ask_id, b"%d" % int(ask.application[3:]))
        assert results(caller) == [[number] for number in range(8)]
        assert results(caller) == 0.5
        assert caller.read()[:2] == (Kind.PONG, 3)


def test_answer_that_does_not_come_is_given_up_by_the_deadline(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 3)
        ask_id, ask = asked(caller)
        assert ask.timeout_us == 50_000
        assert results(caller).startswith("timeout: ")
        answer(caller, ask_id, b'"too late"')
        send(caller, 0.5, batch_id=2)
        assert results(caller) == 0.5


def test_deadline_without_end_is_the_longest_wait(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 10)
        ask_id, ask = asked(caller)
        assert ask.timeout_us == 60_000_000
        answer(caller, ask_id, b"1")
        assert results(caller) == [1]


def test_asks_that_were_given_up_count_until_they_are_answered(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 9)
        found = results(caller, skip=MAX_OPEN_ASKS)
        assert [each.partition(":")[0] for each in found] == ["timeout"] * MAX_OPEN_ASKS + ["overloaded"] * 2


def test_thread_that_outlives_its_batch_gets_an_error(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 4)
        ask_id, _ = asked(caller)
        assert results(caller) == 0
        answer(caller, ask_id, b'"too late"')
        send(caller, 5, batch_id=2)
        assert results(caller) == "unavailable: the batch that it was asked for is over"


def test_forked_child_and_a_model_that_loads_cannot_ask(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 6)
        assert results(caller) == 0
    assert "while it loads: no batch is being evaluated" in container.log


def test_older_caller_is_named(container: Container) -> None:
    with calling(container, ASKS_VERSION - 1) as caller:
        send(caller, 3)
        found = results(caller)
        assert found.startswith("not_implemented: its caller cannot be asked") and "need 7" in found


def test_failed_ask_fails_the_batch_without_halves(container: Container) -> None:
    with calling(container) as caller:
        caller.send(1, DType.FLOAT64, [np.array([7.0]).tobytes()] * 3)
        refuse(caller, asked(caller)[0], "overloaded: gone: the queue is full")
        kind, _, body = caller.read()
        found = messages.decode_results(body)
        assert kind == Kind.RESULTS and len(found.failures) == 3
        assert found.failures[2] == f"{ASK_FAILED}overloaded: gone: the queue is full"
        # If the asked model refuses an input, the batch is tried in halves, as after any error that a model raises.
        caller.send(2, DType.FLOAT64, [np.array([7.0]).tobytes()] * 2)
        for _ in range(3):
            refuse(caller, asked(caller)[0], "model_error: gone: no")
        _, _, body = caller.read()
        assert all("gone: no" in message for message in messages.decode_results(body).failures.values())


@pytest.mark.parametrize(
    "answered", [b"", b"\0" * 40, messages.encode_ping(1), messages.encode_results(1, 3, b"1\n2\n3")]
)
def test_answer_that_is_none_is_an_error(container: Container, answered: bytes) -> None:
    with calling(container) as caller:
        send(caller, 3)
        ask_id, _ = asked(caller)
        caller.socket.sendall(b"".join(answer_frame(ask_id, [answered])))
        assert results(caller).startswith("protocol_violation: ")
        send(caller, 0.5, batch_id=2)
        assert results(caller) == 0.5


def test_large_ask_waits_for_a_caller_that_reads_late(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 8)
        ask_id, ask = asked(caller)
        assert isinstance(ask.rows, TypedResults) and ask.rows.form.shape == (1_000_000,)
        answer(caller, ask_id, b"1", b"2")
        assert results(caller) == [1, 2]


def test_caller_that_goes_or_floods_ends_the_wait(container: Container) -> None:
    with calling(container) as caller:
        send(caller, 7)
        asked(caller)
    with calling(container) as caller:
        send(caller, 7)
        asked(caller)
        with pytest.raises((EOFError, ConnectionError)):
            for batch_id in range(2, MAX_SET_ASIDE + 4):
                send(caller, 0.5, batch_id)
            while True:
                caller.read()
    with calling(container) as caller:
        send(caller, 0.5)
        assert results(caller) == 0.5
    assert container.process.poll() is None
    assert "the query worker has closed the connection" in container.log


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("text", "expected a list of inputs"),
        (5, "expected a list of inputs"),
        ({"x": 5}, "expected a list of inputs"),
        ({"x": [1, 2], "y": [1]}, "cannot be sent"),
        ([object()], "cannot be sent"),
        (pandas.DataFrame([[1, 2]], columns=["x", "x"]), "cannot be sent: a frame has two columns"),
        ([0] * 20_000, "at most 16384"),
        (np.zeros((16, 1 << 20)), "ask in parts"),
        (["x"], "no batch is being evaluated"),
    ],
)
def test_rows_that_cannot_be_asked(rows: Any, message: str) -> None:
    with pytest.raises(ClipperError, match=message):
        clipper.ask("name", rows)
    assert clipper.ask("name", []) == []
    with pytest.raises(ClipperError, match="expected more than 0"):
        clipper.ask("name", ["x"], deadline=0)


@pytest.mark.parametrize("name", ["", "a b", "x" * 70_000])
def test_name_that_no_application_has_is_refused_before_it_is_sent(name: str) -> None:
    with pytest.raises(ClipperError, match="is not a valid name"):
        clipper.ask(name, ["x"])


def test_sigterm_waits_for_the_batch_that_asks(tmp_path: Path) -> None:
    with running(tmp_path, *code(tmp_path, ASKING), "--input-type", "float64[1]") as container:
        with calling(container) as caller:
            send(caller, 1)
            ask_id, _ = asked(caller)
            os.kill(container.process.pid, signal.SIGTERM)
            answer(caller, ask_id, b"1", b"2")
            answer(caller, asked(caller)[0], b"3")
            assert results(caller) == [[1, 2], [3]]
        assert container.wait() == 0
