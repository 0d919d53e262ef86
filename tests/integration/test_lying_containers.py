"""Containers that speak the protocol wrongly, as real processes: the query gets an answer, the worker goes on."""

import itertools
from collections.abc import Iterator

import pytest

from clipper.settings.version import Batching
from tests.serving import SUM, LyingContainer, Response, Serving, application, model, serving, version
from tests.waiting import until

HONEST = "send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'1'] * rows))"

# The code that runs instead of an answer to a batch ``batch`` of ``rows`` rows, and the statuses that a client may get.
LIES = {
    "another id": ("send(RESULTS, batch + 7, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'1'] * rows))", {504}),
    "the same answer twice": (f"{HONEST}; {HONEST}", {200}),
    "an answer nobody asked for": (f"send(RESULTS, 999, struct.pack('<IIQ', 1, 0, 5) + b'1'); {HONEST}", {200}),
    "too few rows": ("send(RESULTS, batch, struct.pack('<IIQ', 1, 0, 5) + b'1')", {502}),
    "too many rows": ("send(RESULTS, batch, struct.pack('<IIQ', 9, 0, 5) + b'\\n'.join([b'1'] * 9))", {502}),
    # Each row is tried again alone, and then the lines are enough.
    "fewer lines than rows": ("send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'1')", {200, 502, 503}),
    "no rows": ("send(RESULTS, batch, struct.pack('<IIQ', 0, 0, 5))", {502, 503}),
    "four billion rows": ("send(RESULTS, batch, struct.pack('<IIQ', 2**32 - 1, 0, 5))", {502, 503}),
    "more failures than rows": ("send(RESULTS, batch, struct.pack('<IIQ', rows, rows + 1, 5))", {502, 503}),
    "a failure of a row that is not there": (
        "send(RESULTS, batch, struct.pack('<IIQIIs', rows, 1, 5, 99, 1, b'x'))",
        {502, 503},
    ),
    "a failure that is not text": (
        "send(RESULTS, batch, struct.pack('<IIQIIs', rows, 1, 5, 0, 1, b'\\xff') + b'\\n1\\n1')",
        {502, 503},
    ),
    "not JSON": ("send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'nan'] * rows))", {502}),
    "JSON that breaks out of its place": (
        "send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'1},{\"a\":2'] * rows))",
        {502},
    ),
    "no text at all": ("send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n' * (rows - 1))", {502}),
    "a string that is not UTF-8": (
        "send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'\"\\xff\\xfe\"'] * rows))",
        {502},
    ),
    "deep JSON": (
        "send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'[' * 100_000] * rows))",
        {502},
    ),
    "an error that is not text": ("send(ERROR, batch, b'\\xff\\xfe')", {502, 503}),
    "an empty error": ("send(ERROR, batch, b'')", {502}),
    "a long error": ("send(ERROR, batch, b'x' * 4096)", {502}),
    "an error of a megabyte": ("send(ERROR, batch, b'x' * (1 << 20))", {502, 503}),
    "a frame of two gigabytes": ("raw(struct.pack('<IBBHQ', 1 << 31, RESULTS, 0, 0, batch))", {502, 503}),
    "a frame that does not end": ("raw(struct.pack('<IBBHQ', 1 << 20, RESULTS, 0, 0, batch) + b'x' * 100)", {504}),
    "a frame of an unknown kind": ("send(99, batch, b'')", {502, 503}),
    "a frame with flags": ("raw(struct.pack('<IBBHQ', 0, RESULTS, 1, 0, batch))", {502, 503}),
    "a short RESULTS": ("send(RESULTS, batch, b'abc')", {502, 503}),
    "a second WELCOME": ("send(WELCOME, 0, welcome)", {502, 503}),
    "a HELLO": ("send(1, 0, b'CLPR')", {502, 503}),
    "HTTP": ("raw(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')", {502, 503}),
    "a hang-up": ("hang_up()", {502, 503}),
    "a hang-up inside a frame": ("raw(b'\\1\\0\\0'); hang_up()", {502, 503}),
    "nothing": ("pass", {504}),
}  # fmt: skip


def typed(shape: str = "(2,)", data: str = "bytes(8 * rows)", **head: str) -> str:
    """TYPED_RESULTS of float32, or of what ``head`` says, with no failures."""
    told = {"rows": "rows", "failed": "0", "dtype": "3", "written_as": "3", "dimensions": f"len({shape})"} | head
    packed = "struct.pack('<IIQBBBBI', {rows}, {failed}, 5, {dtype}, {written_as}, {dimensions}, 0, 0)".format(**told)
    lengths = f"b''.join(struct.pack('<I', each) for each in {shape}) + bytes(len({shape}) % 2 * 4)"
    return f"send(TYPED_RESULTS, batch, {packed} + {lengths} + {data})"


CHANGING = f"""
waiting.append(1)
if len(waiting) % 2:
    {typed()}
else:
    {typed("(1,)", "bytes(rows)", dtype="5", written_as="5")}
"""
# The code that sends TYPED_RESULTS, and the outputs that the client may get: None for an error.
TYPED_LIES = {
    "nothing wrong": (typed(), [[0.0, 0.0], [0.0, 0.0]]),
    "a number": (typed("()", "bytes(4 * rows)"), [0.0, 0.0]),
    "an image": (typed("(224, 224, 3)", "bytes(4 * 224 * 224 * 3 * rows)"), "large"),
    "a type that changes": (CHANGING, "any"),
    "a shape whose product overflows": (typed("(2**32 - 1,) * 7"), [None, None]),
    "nine dimensions": (typed("(1,) * 9"), [None, None]),
    "two hundred dimensions": (typed("()", dimensions="200"), [None, None]),
    "a length of 0": (typed("(2, 0)", "b''"), [None, None]),
    "bytes of another dtype": (typed(dtype="4", written_as="4"), [None, None]),
    "an odd number of bytes": (typed(data="bytes(8 * rows - 1)"), [None, None]),
    "a byte too many": (typed(data="bytes(8 * rows + 1)"), [None, None]),
    "strings": (typed("()", "b'ab'[:rows]", dtype="7", written_as="7"), [None, None]),
    "a type that there is not": (typed(dtype="200"), [None, None]),
    "int32 written as float64": (typed(dtype="1", written_as="4"), [None, None]),
    "no rows": (typed(rows="0", data="b''"), [None, None]),
    "four billion rows": (typed(rows="2**32 - 1"), [None, None]),
    "a row too many": (typed(rows="rows + 1", data="bytes(8 * rows + 8)"), [None, None]),
    "more failures than rows": (typed(failed="rows + 1"), [None, None]),
    "failures that are not there": (typed(failed="rows"), [None, None]),
    "a failure of a row that is not there": (
        typed(data="bytes(8 * rows) + struct.pack('<IIs', 99, 1, b'x')", failed="1"),
        [None, None],
    ),
    "a failure that is not text": (
        typed(data="bytes(8 * rows) + struct.pack('<IIs', 0, 1, b'\\xff')", failed="1"),
        "any",
    ),
    "a bool of 2": (typed("()", "b'\\2' * rows", dtype="6", written_as="6"), [None, None]),
    "a short body": ("send(TYPED_RESULTS, batch, b'abc')", [None, None]),
    "an empty body": ("send(TYPED_RESULTS, batch, b'')", [None, None]),
}  # fmt: skip

# An input that was in flight when two connections broke is refused for a while.
NUMBERS = itertools.count(1000)

GREETINGS = {
    "hangs up": "hang_up()",
    "says nothing": "pass",
    "refuses": "send(ERROR, 0, b'wrong token')",
    "refuses without text": "send(ERROR, 0, b'\\xff')",
    "is not JSON": "send(WELCOME, 0, b'{')",
    "is no object": "send(WELCOME, 0, b'[]')",
    "is deep": "send(WELCOME, 0, b'[' * 100_000)",
    "is of another protocol": "send(WELCOME, 0, welcome.replace(b'\"protocol\": 1', b'\"protocol\": 99'))",
    "is of another model": "send(WELCOME, 0, welcome.replace(b'\"m\"', b'\"n\"'))",
    "has no input type": "send(WELCOME, 0, welcome.replace(b'float64', b'complex'))",
    "has no batch": "send(WELCOME, 0, welcome.replace(b'null', b'0'))",
    "answers before it": "send(RESULTS, 1, struct.pack('<IIQ', 1, 0, 5) + b'1')",
    "is HTTP": "raw(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n')",
    "has a huge frame": "raw(struct.pack('<IBBHQ', (1 << 30) + 1, WELCOME, 0, 0, 0))",
}


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    """One worker, and an honest model whose queries must not suffer."""
    with serving() as system:
        system.start_worker(settle_timeout_s=1.0)
        system.start_container(SUM, "honest")
        yield system


@pytest.fixture(autouse=True)
def no_liar_stays(system: Serving) -> Iterator[None]:
    yield
    for liar in system.others:
        liar.stop()


def serve(system: Serving, liar: LyingContainer, slo_ms: float) -> dict[str, str]:
    honest = model(version(system.containers[0]), name="honest")
    lying = model(version(liar, batching=Batching("fixed", 8)))
    applications = [application("app", slo_ms=slo_ms), application("honest", "honest")]
    return system.apply(applications, [honest, lying]).unlinked


def ask(system: Serving, name: str, body: object) -> Response:
    with system.worker.connect() as client:
        return client.ask(f"/{name}/predict", body)


def assert_unharmed(system: Serving) -> None:
    assert ask(system, "honest", {"input": [1, 2]}).json["output"] == 3


@pytest.mark.parametrize("lie", LIES)
def test_query_gets_an_answer_whatever_the_container_says(system: Serving, lie: str) -> None:
    code, statuses = LIES[lie]
    liar = system.start_liar(on_predict=code)
    # Only a silence is waited for to the end.
    slo_ms = 600.0 if statuses == {504} else 20_000.0
    until(lambda: serve(system, liar, slo_ms) == {})
    parts = ask(system, "app", {"input_batch": [[next(NUMBERS)], [next(NUMBERS)]]}).json["batch_predictions"]
    errors = {part.get("error") for part in parts}
    codes = {200: None, 502: "model_error", 503: "no_replica", 504: "timeout"}
    assert errors <= {codes[status] for status in statuses}, parts
    assert_unharmed(system)


@pytest.mark.parametrize("lie", TYPED_LIES)
def test_a_lie_about_types_fails_its_batch_alone(system: Serving, lie: str) -> None:
    code, expected = TYPED_LIES[lie]
    newer = "send(WELCOME, 0, welcome.replace(b'\"protocol\": 1', b'\"protocol\": 2'))"
    liar = system.start_liar(on_hello=newer, on_predict=code)
    until(lambda: serve(system, liar, 20_000.0) == {})
    for first in (next(NUMBERS), next(NUMBERS)):  # the connection stays: the second batch is answered alike
        answer = ask(system, "app", {"input_batch": [[first], [next(NUMBERS)]]})
        parts = answer.json["batch_predictions"]
        assert {part.get("error", "model_error") for part in parts} == {"model_error"}, parts
        if isinstance(expected, list):
            assert [part.get("output") for part in parts] == expected, parts
        tensor = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [first]}
        body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        with system.worker.connect() as client:
            status = client.ask("/v2/models/app/infer", body).status
        assert status in (200, 502) and (status == 502 or expected != [None, None])
    (replica,) = [each for each in system.worker.statistics().replicas if each.id == liar.address.id]
    assert (replica.state, replica.last_error) == ("linked", None)
    assert_unharmed(system)


def test_a_container_of_the_first_version_sends_no_types(system: Serving) -> None:
    liar = system.start_liar(on_predict=typed())
    until(lambda: serve(system, liar, 20_000.0) == {})
    parts = ask(system, "app", {"input_batch": [[next(NUMBERS)], [next(NUMBERS)]]}).json["batch_predictions"]
    assert {part["error"] for part in parts} <= {"model_error", "no_replica"}
    assert_unharmed(system)


@pytest.mark.parametrize("greeting", GREETINGS)
def test_container_that_greets_wrongly_is_not_linked(system: Serving, greeting: str) -> None:
    liar = system.start_liar(on_hello=GREETINGS[greeting])
    assert list(serve(system, liar, slo_ms=50.0)) == [liar.address.id]
    assert ask(system, "app", {"input": [next(NUMBERS)]}).status == 503
    assert_unharmed(system)


def test_liar_beside_an_honest_replica_costs_no_query(system: Serving) -> None:
    liar = system.start_liar(on_predict="hang_up()")
    honest = system.start_container(SUM)
    both = model(version(liar, honest, batching=Batching("fixed", 4)))
    system.apply(
        [application("app"), application("honest", "honest")],
        [both, model(version(system.containers[0]), name="honest")],
    )
    answer = ask(system, "app", {"input_batch": [[number] for number in range(200)]}).json
    outputs = [part.get("output") for part in answer["batch_predictions"]]
    lost = [part["error"] for part in answer["batch_predictions"] if "error" in part]
    # Work that was with a replica twice when it broke off is given up; all else is answered by the other.
    assert set(lost) <= {"model_error"}
    assert sum(output is not None for output in outputs) > 150
    assert all(output in (None, number) for number, output in enumerate(outputs))
    assert_unharmed(system)


def test_answers_of_the_wrong_batch_do_not_reach_a_query(system: Serving) -> None:
    # Two batches are with the replica; it answers them in the other order, each rightly.
    swap = """
waiting.append((batch, rows, body[16:]))
if len(waiting) == 2:
    for number, count, data in reversed(waiting):
        texts = [b'%d' % int(value) for value in struct.unpack('<%dd' % count, data)]
        send(RESULTS, number, struct.pack('<IIQ', count, 0, 5) + b'\\n'.join(texts))
    waiting.clear()
"""
    liar = system.start_liar(on_predict=swap)
    honest = model(version(system.containers[0]), name="honest")
    lying = model(version(liar, batching=Batching("none")))
    system.apply([application("app"), application("honest", "honest")], [honest, lying])
    parts = ask(system, "app", {"input_batch": [[10], [20]]}).json["batch_predictions"]
    assert [part["output"] for part in parts] == [10, 20]


@pytest.mark.long
def test_container_that_floods_is_no_flood_of_the_worker(system: Serving) -> None:
    liar = system.start_liar(on_predict="while True:\n    send(RESULTS, 999, struct.pack('<IIQ', 1, 0, 5) + b'1')")
    serve(system, liar, slo_ms=300.0)
    assert ask(system, "app", {"input": [1]}).status in (502, 503, 504)
    for _ in range(20):
        assert_unharmed(system)
    # Each connection is ended, and dialled again. The log has a line for its first such answer, and one for its end.
    until(lambda: ask(system, "app", {"input": [1]}).status in (502, 503, 504) and _ended(system) >= 5)
    told = [line for line in system.worker.log.splitlines() if "it was not sent" in line and str(liar.socket) in line]
    assert len(told) <= 2 * (_ended(system) + 1), told[-20:]
    assert_unharmed(system)


def _ended(system: Serving) -> int:
    return system.worker.log.count("101 batches that it was not sent")
