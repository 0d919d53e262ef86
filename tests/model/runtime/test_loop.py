"""Containers as real processes: what a caller sees of models that behave and models that do not."""

import math
import os
import signal
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.model.protocol import messages
from clipper.model.protocol.columns import decode_column_results
from clipper.model.protocol.frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    PROTOCOL_VERSION,
    RETOLD_VERSION,
    Kind,
    header,
)
from clipper.model.runtime.connection import READ_BYTES
from clipper.model.runtime.loop import MAX_CONNECTIONS
from clipper.values.types import DType, InputType
from tests.model.runtime.caller import (
    Caller,
    Container,
    Refused,
    aligned_with_other_bytes,
    code,
    readable,
    running,
    started,
)
from tests.serving import TELLS_APART
from tests.waiting import until

random_frames = st.builds(
    lambda kind, frame_id, body: header(kind, len(body), frame_id) + body,
    st.sampled_from(list(Kind)),
    st.integers(0, 3),
    st.one_of(
        st.just(b""),
        st.binary(max_size=80),
        st.builds(
            lambda rows, row_bytes, dtype, rest: struct.pack("<IIBBHI", rows, row_bytes, dtype, 0, 0, 0) + rest,
            st.integers(0, 4),
            st.integers(0, 9),
            st.integers(0, 9),
            st.binary(max_size=40),
        ),
    ),
)

SUM = "def model(inputs): return inputs.sum(1)"
ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]

# Does what its first number says, for tests of misbehaviour.
ACTING = """
import os, sys, time

def model(inputs):
    action = inputs[0][0]
    if action == 1: os._exit(7)
    if action == 2: sys.exit("enough")
    if action == 3 and os.fork() == 0: return ["from the child"] * len(inputs)
    if action == 4:
        for _ in range(20000): print("a line of the model's that says nothing at all")
    if action == 5:
        while not os.path.exists(os.environ["RELEASE"]): time.sleep(0.01)
    if action == 6: return bytes(8 * 1024**3)
    if action == 7: return ["x" * 4_000_000] * len(inputs)
    if action == 8 and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    return [float(row[0]) for row in inputs]
"""


def acting(folder: Path) -> tuple[str, ...]:
    return code(folder, f"import os\nos.environ['RELEASE'] = {str(folder / 'release')!r}\n{ACTING}")


@pytest.fixture(scope="module")
def summing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """One for all tests that neither end it nor tell it what is not to be undone."""
    folder = tmp_path_factory.mktemp("summing")
    with running(folder, *code(folder, SUM)) as container:
        yield container


def test_answers_batches_in_order_and_says_what_it_is(tmp_path: Path) -> None:
    options = (*code(tmp_path, SUM), "--input-type", "float64[2]")
    with running(tmp_path, *options) as container, container.caller(greet=False) as caller:
        welcome = caller.greet()
        assert (welcome.model, welcome.version, welcome.max_batch) == ("m", "1", None)
        assert welcome.input_type == InputType(DType.FLOAT64, (2,))
        assert "numpy" in welcome.runtime
        for batch_id in (5, 4, 3):
            caller.send(batch_id, DType.FLOAT64, [np.array(row).tobytes() for row in ROWS])
        for batch_id in (5, 4, 3):
            results = caller.results(batch_id)
            assert (results.outputs, results.failures) == ([b"3.0", b"7.0", b"11.0"], {})


def test_each_caller_gets_arrays_as_its_version_has_them(tmp_path: Path) -> None:
    source = "def model(inputs): return inputs.astype('float32')"
    with (
        running(tmp_path, *code(tmp_path, source)) as container,
        container.caller() as first,
        container.caller(greet=False) as second,
        container.caller(greet=False) as third,
    ):
        assert first.predict([[1.1, 2.0]]).outputs == [b"[1.100000023841858,2.0]"]
        welcome = second.greet(version=2)
        # Learned from an answer, though that one was text.
        assert (welcome.protocol, str(welcome.output_type)) == (2, "float32[2]")
        for rows in ([[1.1, 2.0], [3.0, float("inf")]], [[1.0]]):
            second.send(7, DType.FLOAT64, [np.array(row).tobytes() for row in rows])
            results = second.typed_results(7)
            assert str(results.form) == f"float32[{len(rows[0])}]"
            assert bytes(results.data) == np.array(rows, np.float32).tobytes()
            assert results.failures == {}
        # One that speaks a newer version than the container is answered in the container's newest.
        assert third.greet(version=9).protocol == PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("source", "learned", "is_untyped"),
    [
        ("def model(inputs): return [b'raw'] * len(inputs)", "bytes", False),
        ("def model(inputs): return inputs[:, 0].astype('int64')", "int64[]", False),
        ("def model(inputs): return [{'a': {'b': 1}}] * len(inputs)", None, True),
    ],
)
def test_what_is_learned_is_told_before_an_answer(
    tmp_path: Path, source: str, learned: str | None, is_untyped: bool
) -> None:
    """Texts of bytes and of whole numbers do not show their types."""
    with (
        running(tmp_path, *code(tmp_path, source)) as container,
        container.caller(greet=False) as older,
        container.caller(greet=False) as first,
        container.caller(greet=False) as second,
        container.caller(greet=False) as late,
    ):
        older.greet(version=RETOLD_VERSION - 1)
        for caller in (first, second):
            greeted = caller.greet(version=RETOLD_VERSION)
            assert (greeted.output_type, greeted.output_is_untyped) == (None, False)
        for caller in (first, second):
            for is_first in (True, False):
                caller.send(7, DType.FLOAT64, [np.array([1.0]).tobytes()])
                kind, _, body = caller.read()
                if is_first:
                    assert kind == Kind.WELCOME
                    told = messages.decode_welcome(body, RETOLD_VERSION)
                    assert told.protocol == RETOLD_VERSION and told.output_is_untyped == is_untyped
                    assert (None if told.output_type is None else str(told.output_type)) == learned
                    kind, _, _ = caller.read()
                assert kind in (Kind.RESULTS, Kind.COLUMN_RESULTS)
        older.send(7, DType.FLOAT64, [np.array([1.0]).tobytes()])
        assert older.read()[0] in (Kind.RESULTS, Kind.COLUMN_RESULTS)
        assert late.greet(version=RETOLD_VERSION).output_is_untyped == is_untyped
        late.send(7, DType.FLOAT64, [np.array([1.0]).tobytes()])
        assert late.read()[0] in (Kind.RESULTS, Kind.COLUMN_RESULTS)


NAMED = """
def model(inputs):
    if 9 in inputs[:, 0]: raise ValueError("nine")
    return {"label": [f"label {row[0]:.0f}" for row in inputs], "scores": inputs.astype("float32")}
"""


def test_outputs_with_names_are_columns_for_callers_that_know_them(tmp_path: Path) -> None:
    with (
        running(tmp_path, *code(tmp_path, TELLS_APART + NAMED)) as container,
        container.caller(greet=False) as older,
        container.caller(greet=False) as caller,
        container.caller(greet=False) as late,
    ):
        assert older.greet(version=3).output_type is None and caller.greet(version=4).output_type is None
        assert older.predict([[1, 0.5]]).outputs == [b'{"label":"label 1","scores":[1.0,0.5]}']
        caller.send(7, DType.FLOAT64, [np.array(row, np.float64).tobytes() for row in ([1, math.nan], [9, 0], [2, 1])])
        kind, batch_id, body = caller.read()
        assert (kind, batch_id) == (Kind.COLUMN_RESULTS, 7)
        results = decode_column_results(body)
        label, scores = results.columns
        assert bytes(label.payload) == b"label 1label 2" and label.lengths == (7, 0, 7)
        assert np.isnan(np.frombuffer(scores.payload, np.float32)[1]) and str(scores.type) == "float32[2]"
        assert list(results.failures) == [1] and "nine" in results.failures[1]
        assert str(late.greet(version=4).output_type) == "label: string, scores: float32[2]"
        older.socket.close()
        with container.caller(greet=False) as again:
            assert again.greet(version=3).output_type is None


def test_a_declared_record_is_told_to_callers_that_know_records(tmp_path: Path) -> None:
    source = 'class model:\n    output_type = "a: float64, b: string"\n    def __init__(self, data): pass\n'
    with (
        running(tmp_path, *code(tmp_path, f"{source}    def predict(self, rows): return rows")) as container,
        container.caller(greet=False) as caller,
        container.caller(greet=False) as older,
    ):
        assert str(caller.greet(version=4).output_type) == "a: float64, b: string"
        assert older.greet(version=3).output_type is None


def test_several_callers_and_large_batches(summing: Container) -> None:
    with (
        summing.caller() as first,
        summing.caller() as second,
    ):
        large = np.ones((2000, 784))
        assert first.predict(large).outputs == [b"784.0"] * 2000
        assert second.predict(ROWS).outputs == [b"3.0", b"7.0", b"11.0"]


@pytest.mark.parametrize("around", [-8, 0, 8, 5_000_000])
def test_batches_about_the_size_of_a_read_have_all_their_rows(summing: Container, around: int) -> None:
    head_bytes = 16
    numbers = np.arange((READ_BYTES - head_bytes + around) // 8, dtype=np.float64)
    with summing.caller() as caller:
        for batch_id in (1, 2):
            caller.send(batch_id, DType.FLOAT64, [numbers.tobytes()])
            assert caller.results(batch_id).outputs == [str(float(numbers.sum())).encode()]


def test_large_batches_that_a_model_keeps_and_changes_stay_its_own(tmp_path: Path) -> None:
    source = """
kept = []

def model(inputs):
    kept.append(inputs)
    inputs += 1
    if (inputs[:, 0] == 101).any():
        raise ValueError("no 100")
    return [float(sum(each[0, -1] for each in kept))] * len(inputs)
"""
    with running(tmp_path, *code(tmp_path, source)) as container, container.caller() as caller:
        rows = np.ones((4, 300_000))
        for batch_id, sum_of_kept in ((1, 2.0), (2, 4.0), (3, 6.0)):
            assert caller.predict(rows, batch_id=batch_id).outputs == [str(sum_of_kept).encode()] * 4
        rows[2] = 100
        # A second try has the inputs as they came. A slow machine may have no time for all of its parts.
        assert 2 in caller.predict(rows, batch_id=4).failures


def test_callers_that_leave_inside_a_large_batch_harm_nobody(summing: Container) -> None:
    large = [np.ones(1_000_000).tobytes()] * 3
    frame = b"".join(messages.encode_predict(1, DType.FLOAT64, 0, large))
    for sent in (HEADER_BYTES, READ_BYTES, len(frame) // 2, len(frame) - 1):
        with summing.caller() as leaving, summing.caller() as staying:
            leaving.socket.sendall(frame[:sent])
            assert staying.predict(np.full((2, 1_000_000), 2.0)).outputs == [b"2000000.0"] * 2
            leaving.socket.close()
            assert staying.predict(ROWS, batch_id=2).outputs == [b"3.0", b"7.0", b"11.0"]


def test_large_batches_of_two_callers_at_once_are_not_mixed(summing: Container) -> None:
    with summing.caller() as first, summing.caller() as second:
        frames = [
            b"".join(messages.encode_predict(1, DType.FLOAT64, 0, [np.full(500_000, number).tobytes()] * 2))
            for number in (1.0, 3.0)
        ]
        half = len(frames[0]) // 2
        first.socket.sendall(frames[0][:half])
        second.socket.sendall(frames[1][:half])
        first.socket.sendall(frames[0][half:])
        second.socket.sendall(frames[1][half:])
        assert first.results(1).outputs == [b"500000.0"] * 2
        assert second.results(1).outputs == [b"1500000.0"] * 2


def test_hello_and_predict_in_one_write(summing: Container) -> None:
    with summing.caller(greet=False) as caller:
        # More than may come before HELLO, behind it in the same read.
        rows = [np.ones(10_000).tobytes()]
        predict = b"".join(messages.encode_predict(1, DType.FLOAT64, 0, rows))
        caller.socket.sendall(messages.encode_hello() + predict)
        assert caller.read()[0] == Kind.WELCOME
        assert caller.results(1).outputs == [b"10000.0"]


def test_bytes_that_only_align_are_not_looked_at(tmp_path: Path) -> None:
    source = "def model(inputs): return [float(row.sum()) for row in inputs]"
    with running(tmp_path, *code(tmp_path, source)) as container, container.caller() as caller:
        caller.socket.sendall(aligned_with_other_bytes([struct.pack("<2d", 1.5, 2.5), b"", struct.pack("<d", 3.0)]))
        assert caller.results(1).outputs == [b"4.0", b"0.0", b"3.0"]


def test_one_bad_row_fails_alone_and_the_log_has_the_traceback(tmp_path: Path) -> None:
    source = "def model(inputs):\n    assert not (inputs[:, 0] == 3).any(), 'three!'\n    return inputs.sum(1)"
    with running(tmp_path, *code(tmp_path, source)) as container, container.caller() as caller:
        results = caller.predict(ROWS)
        assert results.outputs == [b"3.0", b"", b"11.0"]
        assert results.failures == {1: "AssertionError: three! (served.py:2, in model)"}
        assert "Traceback" in container.log


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("return inputs.sum(1)[:-1]", "returned 2 outputs for 3 inputs"),
        ("return list(inputs) * 2", "returned 6 outputs for 3 inputs"),
        ("return None", "returned None"),
    ],
)
def test_broken_contract_fails_the_batch_and_the_connection_stays(tmp_path: Path, body: str, cause: str) -> None:
    source = f"def model(inputs):\n    if len(inputs) == 1: return [0]\n    {body}"
    with running(tmp_path, *code(tmp_path, source)) as container, container.caller() as caller:
        with pytest.raises(Refused, match=cause):
            caller.predict(ROWS)
        assert caller.predict(ROWS[:1]).outputs == [b"0"]


def test_what_is_not_json_fails_its_row_and_nan_does_not(tmp_path: Path) -> None:
    source = "def model(inputs): return [float('nan'), object(), 'fine']"
    with running(tmp_path, *code(tmp_path, source)) as container, container.caller() as caller:
        results = caller.predict(ROWS)
        assert results.outputs == [b"null", b"", b'"fine"']
        assert list(results.failures) == [1]
        assert "object" in results.failures[1]


def test_wrong_type_fails_the_batch_and_the_connection_stays(tmp_path: Path) -> None:
    options = (*code(tmp_path, SUM), "--input-type", "float64[2]")
    with running(tmp_path, *options) as container, container.caller() as caller:
        with pytest.raises(Refused, match=r"takes float64\[2\]"):
            caller.predict([[1.0, 2.0, 3.0]])
        assert caller.predict(ROWS[:1]).outputs == [b"3.0"]


def test_model_that_calls_sys_exit_or_prints_a_lot_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, *acting(tmp_path)) as container, container.caller() as caller:
        assert "SystemExit: enough" in caller.predict([[2.0]]).failures[0]
        assert caller.predict([[4.0]]).outputs == [b"4.0"]
        assert container.log.count("says nothing") == 20_000


def test_model_that_exits_ends_its_connections_and_process(tmp_path: Path) -> None:
    with running(tmp_path, *acting(tmp_path)) as container, container.caller() as caller:
        with pytest.raises(EOFError):
            caller.predict([[1.0]])
        assert container.wait() == 7


def test_child_that_comes_back_from_the_model_answers_nothing(tmp_path: Path) -> None:
    with running(tmp_path, *acting(tmp_path)) as container, container.caller() as caller:
        for batch_id in range(1, 20):
            assert caller.predict([[3.0]], batch_id=batch_id).outputs == [b"3.0"]
        assert not readable(caller.socket)
        assert Path(container.address.removeprefix("unix:")).exists()


def test_child_that_lives_on_holds_no_connection(tmp_path: Path) -> None:
    with running(tmp_path, *acting(tmp_path)) as container, container.caller() as caller:
        assert caller.predict([[8.0]]).outputs == [b"8.0"]
        container.process.kill()
        with pytest.raises(EOFError):
            caller.read()


def test_out_of_memory_is_the_models_error(tmp_path: Path) -> None:
    options = (*acting(tmp_path), "--memory-bytes", str(2 * 1024**3))
    with running(tmp_path, *options) as container, container.caller() as caller:
        assert "MemoryError" in caller.predict([[6.0]]).failures[0]
        assert caller.predict([[0.0]]).outputs == [b"0.0"]


def test_ping_is_answered_while_a_batch_runs(tmp_path: Path) -> None:
    with (
        running(tmp_path, *acting(tmp_path)) as container,
        container.caller() as watcher,
        container.caller() as caller,
    ):
        assert watcher.ping() == 0
        caller.send(1, DType.FLOAT64, [struct.pack("<d", 5.0)])
        until(lambda: watcher.ping() > 0)
        first = watcher.ping()
        assert watcher.ping() > first
        (tmp_path / "release").touch()
        assert caller.results(1).outputs == [b"5.0"]
        assert watcher.ping() == 0


def test_connection_that_works_is_pinged_between_batches(summing: Container) -> None:
    with summing.caller() as caller:
        assert caller.predict(ROWS).failures == {}
        assert caller.ping(9) == 0
        assert caller.predict(ROWS).failures == {}


def test_connection_that_watches_is_told_that_it_only_does(summing: Container) -> None:
    with summing.caller() as watcher:
        watcher.ping()
        with pytest.raises(Refused, match="watches"):
            watcher.predict(ROWS)
        assert watcher.ping() == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        header(Kind.HELLO, 4) + b"CLPR",
        header(Kind.PREDICT, MAX_BODY_BYTES + 1, 1),
        header(Kind.WELCOME, 0),
        bytes(100_000),
    ],
    ids=["http", "short_hello", "huge", "welcome", "zeros"],
)
@pytest.mark.parametrize("before", ["nothing", "hello", "ping"])
def test_garbage_ends_its_connection_and_nothing_else(summing: Container, garbage: bytes, before: str) -> None:
    with (
        summing.caller() as other,
        summing.caller(greet=before != "nothing") as caller,
    ):
        if before == "ping":
            caller.ping()
        # The container may close while this is still being sent.
        with suppress(ConnectionError):
            caller.socket.sendall(garbage)
        with pytest.raises(EOFError):
            while caller.read()[0] == Kind.ERROR:
                assert before == "nothing"
        assert other.predict(ROWS).outputs == [b"3.0", b"7.0", b"11.0"]


def test_predict_before_hello_is_refused_with_a_reason(summing: Container) -> None:
    with (
        summing.caller(greet=False) as caller,
        pytest.raises(Refused, match="expected HELLO"),
    ):
        caller.predict(ROWS, batch_id=0)


def test_random_frames_harm_nobody_else(summing: Container) -> None:
    with summing.caller() as other:

        @given(st.booleans(), st.lists(random_frames | st.binary(max_size=60), max_size=5))
        @settings(max_examples=200, deadline=None)
        def fuzz(greet: bool, sent: list[bytes]) -> None:
            with summing.caller(greet) as caller:
                # The container may close while this is still being sent.
                with suppress(ConnectionError):
                    caller.socket.sendall(b"".join(sent))
                    caller.socket.shutdown(socket.SHUT_WR)
                with suppress(EOFError):
                    while True:
                        caller.read()
            assert other.predict(ROWS[:1]).outputs == [b"3.0"]

        fuzz()


def test_second_hello_ends_its_connection(summing: Container) -> None:
    with summing.caller() as caller:
        caller.socket.sendall(messages.encode_hello())
        with pytest.raises(EOFError):
            caller.read()


def test_predict_whose_sizes_do_not_add_up_ends_its_connection(summing: Container) -> None:
    with summing.caller() as caller:
        caller.socket.sendall(header(Kind.PREDICT, 4, 1) + bytes(4))
        with pytest.raises(EOFError):
            caller.read()
        assert "PREDICT of 4 bytes is too short" in summing.log


def test_reader_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    with (
        running(tmp_path, *acting(tmp_path)) as container,
        container.caller() as slow,
        container.caller() as other,
    ):
        for batch_id in (1, 2, 3):
            slow.send(batch_id, DType.FLOAT64, [struct.pack("<d", 7.0)] * 4)
        assert other.predict([[0.0]]).outputs == [b"0.0"]
        for batch_id in (1, 2, 3):
            assert [len(output) for output in slow.results(batch_id).outputs] == [4_000_002] * 4


def test_sigterm_finishes_the_batch_in_hand(tmp_path: Path) -> None:
    with (
        running(tmp_path, *acting(tmp_path)) as container,
        container.caller() as watcher,
        container.caller() as caller,
        container.caller() as waiting,
        container.caller() as late,
    ):
        watcher.ping()
        caller.send(1, DType.FLOAT64, [struct.pack("<d", 5.0)])
        until(lambda: watcher.ping() > 0)
        waiting.send(2, DType.FLOAT64, [struct.pack("<d", 20.0)])
        container.process.terminate()
        os.kill(container.process.pid, signal.SIGINT)
        assert watcher.ping() > 0
        late.send(3, DType.FLOAT64, [struct.pack("<d", 20.0)])
        caller.send(4, DType.FLOAT64, [struct.pack("<d", 20.0)])
        (tmp_path / "release").touch()
        assert caller.results(1).outputs == [b"5.0"]
        assert container.wait() == 0
        for unanswered in (waiting, late, caller):
            with pytest.raises(EOFError):
                unanswered.read()
        assert not Path(container.address.removeprefix("unix:")).exists()


def test_sigterm_waits_for_an_answer_to_be_taken(tmp_path: Path) -> None:
    with running(tmp_path, *acting(tmp_path)) as container, container.caller() as caller:
        caller.send(1, DType.FLOAT64, [struct.pack("<d", 7.0)] * 4)
        until(lambda: readable(caller.socket))
        container.process.terminate()
        assert len(caller.results(1).outputs) == 4
        assert container.wait() == 0


def test_sigterm_ends_an_idle_container_sigint_does_not(tmp_path: Path) -> None:
    with running(tmp_path, *code(tmp_path, SUM)) as container, container.caller() as caller:
        os.kill(container.process.pid, signal.SIGINT)
        assert caller.predict(ROWS).failures == {}
        container.process.terminate()
        assert container.wait() == 0


def test_unix_socket_is_for_its_owner_only(summing: Container) -> None:
    mode = Path(summing.address.removeprefix("unix:")).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_socket_of_a_dead_container_is_replaced_of_a_live_one_not(tmp_path: Path) -> None:
    options = code(tmp_path, SUM)
    with running(tmp_path, *options) as first:
        with started(tmp_path, *options, listen=first.address) as second:
            assert second.wait() == 4
            assert f"cannot listen on {first.address}" in second.log.splitlines()[-1]
        first.process.kill()
        first.wait()
        assert Path(first.address.removeprefix("unix:")).exists()
        with running(tmp_path, *options, listen=first.address) as third, third.caller() as caller:
            assert caller.predict(ROWS).failures == {}


def test_tcp_asks_for_the_token(tmp_path: Path) -> None:
    source = "import os\ndef model(inputs): return ['CLIPPER_TOKEN' in os.environ] * len(inputs)"
    with running(tmp_path, *code(tmp_path, source), listen="tcp:127.0.0.1:0", token="s3cret") as container:
        for wrong in ("", "s3cre", "s3cret!"):
            caller = Caller(container.address)
            with caller.socket, pytest.raises(Refused, match="token"):
                caller.greet(wrong)
        with container.caller(token="s3cret") as caller:
            assert caller.predict([[1.0]]).outputs == [b"false"]


def test_tcp_without_a_token_is_wrong_usage(tmp_path: Path) -> None:
    with started(tmp_path, *code(tmp_path, SUM), listen="tcp:127.0.0.1:0") as container:
        assert container.wait() == 2
        assert "CLIPPER_TOKEN" in container.log


def test_port_that_is_taken_is_an_exit_code_of_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        with started(tmp_path, *code(tmp_path, SUM), listen=address, token="t") as container:
            assert container.wait() == 4
            assert f"cannot listen on {address}" in container.log.splitlines()[-1]


def test_callers_that_come_and_go_leave_nothing(summing: Container) -> None:
    with summing.caller() as caller:
        descriptors = Path(f"/proc/{summing.process.pid}/fd")
        caller.predict(ROWS)
        before = len(list(descriptors.iterdir()))
        for number in range(300):
            with summing.caller() as other:
                if number % 2:
                    other.ping()
        until(lambda: len(list(descriptors.iterdir())) <= before + 2)
        assert caller.predict(ROWS).failures == {}


def test_strangers_that_say_nothing_give_way_and_keep_nobody_out(tmp_path: Path) -> None:
    """Anybody on the machine can dial a container on TCP, and others where it has a network of its own."""
    with (
        running(tmp_path, *code(tmp_path, SUM), listen="tcp:127.0.0.1:0", token="s3cret") as container,
        ExitStack() as strangers,
        container.caller(token="s3cret") as before,
    ):

        def come(count: int) -> None:
            for _ in range(count):
                strangers.enter_context(Caller(container.address).socket)

        come(MAX_CONNECTIONS + 50)
        for _ in range(3):
            with container.caller(token="s3cret") as caller:
                assert caller.predict(ROWS).failures == {}
            come(50)
        assert before.predict(ROWS).failures == {}


def test_kernel_would_take_the_model_first(summing: Container) -> None:
    assert Path(f"/proc/{summing.process.pid}/oom_score_adj").read_text() == "500\n"
