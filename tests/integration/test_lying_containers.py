"""Containers that speak the protocol wrongly, as real processes: the query gets an answer, the worker goes on."""

from collections.abc import Iterator

import pytest

from clipper.settings.version import Batching
from serving import SUM, LyingContainer, Response, Serving, application, model, serving, version
from waiting import until

HONEST = "send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'1'] * rows))"

# What each does instead of answering a batch of ``rows`` with the id ``batch``, and what the client may be told.
LIES = {
    "another id": ("send(RESULTS, batch + 7, struct.pack('<IIQ', rows, 0, 5) + b'\\n'.join([b'1'] * rows))", {504}),
    "the same answer twice": (f"{HONEST}; {HONEST}", {200}),
    "an answer nobody asked for": (f"send(RESULTS, 999, struct.pack('<IIQ', 1, 0, 5) + b'1'); {HONEST}", {200}),
    "too few rows": ("send(RESULTS, batch, struct.pack('<IIQ', 1, 0, 5) + b'1')", {502}),
    "too many rows": ("send(RESULTS, batch, struct.pack('<IIQ', 9, 0, 5) + b'\\n'.join([b'1'] * 9))", {502}),
    "fewer lines than rows": ("send(RESULTS, batch, struct.pack('<IIQ', rows, 0, 5) + b'1')", {502, 503}),
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

GREETINGS = {
    "hangs up": "hang_up()",
    "says nothing": "pass",
    "refuses": "send(ERROR, 0, b'wrong token')",
    "refuses without text": "send(ERROR, 0, b'\\xff')",
    "is not JSON": "send(WELCOME, 0, b'{')",
    "is no object": "send(WELCOME, 0, b'[]')",
    "is deep": "send(WELCOME, 0, b'[' * 100_000)",
    "is of another protocol": "send(WELCOME, 0, welcome.replace(b'\"protocol\": 1', b'\"protocol\": 2'))",
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
    parts = ask(system, "app", {"input_batch": [[1], [2]]}).json["batch_predictions"]
    errors = {part.get("error") for part in parts}
    codes = {200: None, 502: "model_error", 503: "no_replica", 504: "timeout"}
    assert errors <= {codes[status] for status in statuses}, parts
    assert_unharmed(system)


@pytest.mark.parametrize("greeting", GREETINGS)
def test_container_that_greets_wrongly_is_not_linked(system: Serving, greeting: str) -> None:
    liar = system.start_liar(on_hello=GREETINGS[greeting])
    assert list(serve(system, liar, slo_ms=50.0)) == [liar.address.id]
    assert ask(system, "app", {"input": [1]}).status == 503
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


def test_container_that_floods_is_no_flood_of_the_worker(system: Serving) -> None:
    liar = system.start_liar(on_predict="while True:\n    send(RESULTS, 999, struct.pack('<IIQ', 1, 0, 5) + b'1')")
    serve(system, liar, slo_ms=300.0)
    assert ask(system, "app", {"input": [1]}).status in (502, 503, 504)
    for _ in range(20):
        assert_unharmed(system)
    liar.stop()
    until(lambda: "lost" in {replica.state for replica in system.worker.statistics().replicas})
