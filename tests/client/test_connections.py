"""Both clients against servers that close, lie, are silent or never end."""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipper.base import http1
from clipper.base.tls.trust import ClientTls, Trust
from clipper.client import async_connections, connections, query_calls
from clipper.client.connections import MAX_CONNECTIONS
from clipper.client.queries import AsyncQueries
from clipper.errors import DeadlineExceeded, ModelFailed, TooLarge, TooManyRequests, Unavailable
from tests.certificates import Authority
from tests.client.scripted_server import Accepted, Blocking, scripted
from tests.ports import keep_port
from tests.waiting import TIMEOUT_S

ROW = np.ones(2)
both = pytest.mark.parametrize("kind", ["sync", "async"])


def predictions(connection: Accepted) -> None:
    """As a server does: one connection for as long as the client has it."""
    connection.tell_metadata()
    while True:
        connection.predict()


@both
def test_a_connection_is_kept(kind: str) -> None:
    with scripted(predictions) as server, Blocking(server.url, kind) as client:
        assert [client.predict("app", ROW).output for _ in range(3)] == [7, 7, 7]
        assert client.predict("app", [1, 2]).output == 7
        assert server.accepted == 1


@both
def test_a_long_body_is_sent_whole(kind: str) -> None:
    seen: list[bytes] = []

    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        while True:
            seen.append(connection.predict()[2])

    text = "".join(map(str, range(400_000)))
    with scripted(script) as server, Blocking(server.url, kind) as client:
        client.predict("app", text)
        client.predict("app", "short")
    assert [json.loads(body)["input"] for body in seen] == [text, "short"]


@both
def test_what_is_sent(kind: str) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        while True:
            seen.append(connection.predict())

    with scripted(script) as server, Blocking(server.url, kind, api_key="k" * 32) as client:
        client.predict("app", ROW, version="a b", context="user", timeout_s=0.25, features=[1])
        client.predict("app", [1, 2], context="user", timeout_s=0.25)
    (path, headers, body), (json_path, _, json_body) = seen
    assert (path, headers["authorization"]) == ("/v2/models/app/versions/a%20b/predict", "Bearer " + "k" * 32)
    assert body[: int(headers["inference-header-content-length"])] == (
        b'{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP64","parameters":{"binary_data_size":16}},'
        b'{"name":"features","shape":[1,1],"datatype":"FP64","data":[[1]]}],'
        b'"parameters":{"context":"user","timeout":250000}}'
    )
    assert body[int(headers["inference-header-content-length"]) :] == ROW.tobytes()
    assert json_path == "/app/predict"
    assert json_body == b'{"input":[1,2],"context":"user","timeout_ms":250.0}'


@both
def test_feedback_on_arrays_is_sent_as_one_tensor(kind: str) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        seen.append(connection.read())
        connection.answer({"observations": [{"observed": True, "duplicate": False}] * 2})

    given = {"label": "x", "id": "i", "context": "c", "features": ROW}
    with scripted(script) as server, Blocking(server.url, kind) as client:
        assert len(client.observe_batch("app", [{"input": ROW, **given}, {"input": 2 * ROW, **given}])) == 2
    ((path, headers, body),) = seen
    assert path == "/v2/models/app/observe"
    assert body[: int(headers["inference-header-content-length"])] == (
        b'{"inputs":[{"name":"input","shape":[2,2],"datatype":"FP64","parameters":{"binary_data_size":32}},'
        b'{"name":"label","shape":[2],"datatype":"BYTES","data":["x","x"]},'
        b'{"name":"features","shape":[2,2],"datatype":"FP64","data":[[1.0,1.0],[1.0,1.0]]},'
        b'{"name":"id","shape":[2],"datatype":"BYTES","data":["i","i"]},'
        b'{"name":"context","shape":[2],"datatype":"BYTES","data":["c","c"]}]}'
    )
    assert body.endswith(np.array([ROW, 2 * ROW]).tobytes())


def closing_when_asked_again(connection: Accepted) -> None:
    """The request is read, so that the client could send it, and is not answered."""
    connection.tell_metadata()
    connection.predict()
    connection.read()


@both
def test_a_request_on_an_idle_connection_that_has_closed_is_sent_again(kind: str) -> None:
    def second(connection: Accepted) -> None:
        while True:
            connection.predict("second")

    with scripted(closing_when_asked_again, second) as server, Blocking(server.url, kind) as client:
        assert client.predict("app", ROW).output == 7
        assert client.predict("app", ROW).output == "second"
        assert server.accepted == 2


@both
def test_only_feedback_that_counts_once_is_sent_again(kind: str) -> None:
    def learning(connection: Accepted) -> None:
        connection.read()
        connection.answer({"observed": True, "duplicate": True})

    for identified in ({"id": "a", "input": [1, 2]}, {"query_id": 1}):
        with scripted(closing_when_asked_again, learning) as server, Blocking(server.url, kind) as client:
            client.predict("app", ROW)
            assert client.observe("app", label=1, **identified).duplicate
    with scripted(closing_when_asked_again, learning) as server, Blocking(server.url, kind) as client:
        client.predict("app", ROW)
        with pytest.raises(Unavailable, match="broke off"):
            client.observe("app", label=1, input=[1, 2])
        assert server.accepted == 1
    with scripted(closing_when_asked_again, learning) as server, Blocking(server.url, kind) as client:
        client.predict("app", ROW)
        with pytest.raises(Unavailable, match="broke off"):
            client.observe_batch("app", [{"label": 1, "query_id": 1}, {"label": 1, "input": [1, 2]}])


@both
def test_what_broke_off_otherwise_is_not_sent_again(kind: str) -> None:
    def new(connection: Accepted) -> None:
        connection.read()

    def begun(connection: Accepted) -> None:
        connection.tell_metadata()
        connection.predict()
        connection.read()
        connection.socket.sendall(b"HTTP/1.1 200 OK\r\n")

    with scripted(new, predictions) as server, Blocking(server.url, kind) as client:
        with pytest.raises(Unavailable, match=r"GET /v2/models/app at .* broke off: the server closed the connection"):
            client.predict("app", ROW)
        assert server.accepted == 1
        assert client.predict("app", ROW).output == 7
    with scripted(begun, predictions) as server, Blocking(server.url, kind) as client:
        client.predict("app", ROW)
        with pytest.raises(Unavailable, match=r"POST /v2/models/app/predict at .* broke off"):
            client.predict("app", ROW)
        assert server.accepted == 1


@both
@pytest.mark.parametrize("is_dripping", [False, True])
def test_a_server_that_never_answers_costs_the_slo_and_little_more(
    kind: str, is_dripping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_calls, "ARRIVAL_S", 0.05)
    given_up = threading.Event()

    def script(connection: Accepted) -> None:
        connection.tell_metadata(slo_ms=10)
        connection.read()
        connection.socket.sendall(b"HTTP/1.1 200 OK\r\n")
        while is_dripping and not given_up.is_set():
            connection.socket.sendall(b"x")
        connection.socket.recv(1)

    with scripted(script) as server, Blocking(server.url, kind) as client:
        expected = r"did not answer POST /v2/models/app/predict within 0.06 s|is over 65536 bytes"
        with pytest.raises((DeadlineExceeded, Unavailable), match=expected):
            client.predict("app", ROW)
        given_up.set()


@both
def test_a_timeout_of_a_call_shortens_the_wait(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_calls, "ARRIVAL_S", 0.0)

    def script(connection: Accepted) -> None:
        connection.tell_metadata(slo_ms=600_000)
        connection.read()
        connection.socket.recv(1)

    late = pytest.raises(DeadlineExceeded, match=r"within 0.02 s")
    with scripted(script) as server, Blocking(server.url, kind) as client, late:
        client.predict("app", ROW, timeout_s=0.02)


@both
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nnginx", "is not Clipper: it answered 'nginx'"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xff", "is not Clipper"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + b"[" * 20000, "is not Clipper"),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", "is not Clipper: it answered 302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n" + bytes(200_000), "is over 100000 bytes"),
    ],
)
def test_a_server_that_lies(kind: str, answer: bytes, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "MAX_ANSWER_BYTES", 100_000)

    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        connection.read()
        connection.socket.sendall(answer)
        connection.socket.recv(1)

    with scripted(script) as server, Blocking(server.url, kind) as client, pytest.raises(Unavailable, match=told):
        client.predict("app", ROW)


@both
@pytest.mark.parametrize(
    "parts",
    [[], [{"query_id": 1}] * 2, [{"error": 5}] * 2, [5, 6], [{"error": "timeout", "cause": "late"}] * 3, "text"],
)
def test_a_batch_that_is_not_answered_as_it_was_asked(kind: str, parts: object) -> None:
    def script(connection: Accepted) -> None:
        connection.tell_metadata(slo_ms=1e300)
        for name in ("batch_predictions", "observations"):
            connection.read()
            connection.answer({name: parts})
        connection.read()

    with scripted(script) as server, Blocking(server.url, kind) as client:
        with pytest.raises(Unavailable, match="is not Clipper"):
            client.predict_batch("app", np.ones((2, 2)))
        with pytest.raises(Unavailable, match="is not Clipper"):
            client.observe_batch("app", [{"query_id": 1, "label": 1}] * 2)


@both
def test_an_answer_that_was_not_asked_for_is_not_taken_for_the_next(kind: str) -> None:
    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        connection.read()
        one = b'{"query_id":1,"output":%d,"default":false,"confidence":1.0}'
        texts = [b"HTTP/1.1 200 OK\r\ncontent-length: 58\r\n\r\n" + one % number for number in (1, 2)]
        connection.socket.sendall(b"".join(texts))
        connection.socket.recv(1)

    def next_one(connection: Accepted) -> None:
        connection.predict("next")

    with scripted(script, next_one) as server, Blocking(server.url, kind) as client:
        assert client.predict("app", ROW).output == 1
        assert client.predict("app", ROW).output == "next"


@both
def test_a_refusal_before_the_whole_body_was_read_is_told(kind: str) -> None:
    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        connection.socket.recv(10)
        connection.answer({"error": "body is over 8 bytes", "code": "too_large"}, 413)
        connection.socket.shutdown(socket.SHUT_WR)
        while connection.socket.recv(1 << 20):
            pass

    with (
        scripted(script) as server,
        Blocking(server.url, kind) as client,
        pytest.raises(TooLarge, match="over 8 bytes"),
    ):
        client.predict_batch("app", np.ones((1_000_000, 2)))


@both
def test_errors_of_the_server(kind: str) -> None:
    def script(connection: Accepted) -> None:
        connection.tell_metadata()
        connection.read()
        text = b'{"error":"slow down","code":"too_many_requests"}'
        head = b"HTTP/1.1 429 No\r\nretry-after: 9\r\ncontent-length: %d\r\n\r\n"
        connection.socket.sendall(head % len(text) + text)
        for _ in range(2):
            connection.read()
            connection.answer({"error": "model_error", "cause": "it raised"}, 502)
        connection.read()

    with scripted(script) as server, Blocking(server.url, kind) as client:
        with pytest.raises(TooManyRequests, match="slow down") as refused:
            client.predict_batch("app", ROW.reshape(1, 2))
        assert refused.value.retry_after_s == 9
        with pytest.raises(ModelFailed, match="it raised"):
            client.predict("app", ROW)
        (failed,) = client.predict_batch("app", ROW.reshape(1, 2))
        assert isinstance(failed, ModelFailed)


@both
def test_no_server_is_there(kind: str) -> None:
    with keep_port() as kept:
        url = f"http://127.0.0.1:{kept.getsockname()[1]}"
        with Blocking(url, kind) as client, pytest.raises(Unavailable, match=r"no Clipper answers at .*clipper start"):
            client.predict("app", ROW)


@both
def test_a_closed_client(kind: str) -> None:
    with scripted(predictions) as server:
        with Blocking(server.url, kind) as client:
            client.predict("app", ROW)
        with Blocking(server.url, kind) as client:
            (client.queries._connections.close if kind == "sync" else client.close)()
            with pytest.raises(Unavailable, match="closed"):
                client.predict("app", ROW)


@both
def test_tls(kind: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with scripted(predictions, predictions, context=context) as server:
        trusting = ClientTls(Trust(ca=authority.certificate))
        with Blocking(server.url, kind, trusting) as client:
            assert [client.predict("app", ROW).output for _ in range(3)] == [7, 7, 7]
            assert server.accepted == 1
        with Blocking(server.url, kind, ClientTls(Trust(pinned=pair.certificate))) as client:
            assert client.predict("app", ROW).output == 7
    refused = pytest.raises(Unavailable, match=r"not trusted.*CLIPPER_CA")
    with scripted(*[predictions] * 2, context=context) as server, Blocking(server.url, kind) as client, refused:
        client.predict("app", ROW)


@both
def test_a_server_that_speaks_no_tls(kind: str) -> None:
    def script(connection: Accepted) -> None:
        connection.socket.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")

    with scripted(script) as server, Blocking(server.url.replace("http:", "https:"), kind) as client:
        with pytest.raises(Unavailable):
            client.predict("app", ROW)
        assert server.accepted == 1


def echo(connection: Accepted) -> None:
    """Answers each input with its first number."""
    while True:
        path, headers, body = connection.read()
        if path == "/v2/models/app":
            inputs = [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]
            connection.answer({"inputs": inputs, "parameters": {"slo_ms": 10_000}})
        else:
            row = np.frombuffer(body[int(headers["inference-header-content-length"]) :])
            connection.answer({"query_id": 1, "output": row[0], "default": False, "confidence": 1.0})


def test_threads_share_a_client() -> None:
    wrong: list[object] = []
    with scripted(*[echo] * 8) as server, Blocking(server.url, "sync") as client:

        def ask(number: int) -> None:
            for count in range(50):
                value = float(100 * number + count)
                if (found := client.predict("app", np.full(2, value)).output) != value:
                    wrong.append((found, value))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (wrong, server.accepted <= 8) == ([], True)


@both
def test_connections_that_are_idle_for_long_are_closed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connections, async_connections):
        monkeypatch.setattr(module, "MAX_IDLE_S", -1.0)
    with scripted(*[echo] * 4) as server, Blocking(server.url, kind) as client:
        assert [client.predict("app", np.full(2, value)).output for value in (1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0]
        assert server.accepted == 4


def test_more_threads_than_connections_wait_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(predictions) as server, Blocking(server.url, "sync") as client:
        client.predict("app", ROW)
        monkeypatch.setattr(query_calls, "ARRIVAL_S", 0.0)
        places = client.queries._connections._pool.places
        for _ in range(MAX_CONNECTIONS):
            places.acquire()
        with pytest.raises(DeadlineExceeded, match="64 calls of other threads"):
            client.predict("app", ROW, timeout_s=0.01)
        for _ in range(MAX_CONNECTIONS):
            places.release()
        assert client.predict("app", ROW).output == 7


# Both go on with the client after a fork, at the same time: each has to get its own answers.
FORKED = """
import os, sys
import numpy as np
from clipper.client.queries import AsyncQueries, Queries
from clipper.base.tls.trust import ClientTls, Trust

client = Queries(sys.argv[1], ClientTls(Trust()))
assert client.predict("app", np.zeros(2)).output == 0
child = os.fork()
for count in range(50):
    value = float(count + (1000 if child else 0))
    assert client.predict("app", np.full(2, value)).output == value
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_fork_shares_no_connection() -> None:
    with scripted(echo, echo) as server:
        subprocess.run([sys.executable, "-c", FORKED, server.url], check=True, timeout=TIMEOUT_S)
        assert server.accepted == 2


def test_tasks_take_turns() -> None:
    async def main(url: str) -> None:
        client = AsyncQueries(url, ClientTls(Trust()), max_connections=2)
        values = [float(each) for each in range(100)]
        found = await asyncio.gather(*(client.predict("app", np.full(2, each)) for each in values))
        assert [each.output for each in found] == values
        await client.close()

    with scripted(*[echo] * 2) as server:
        asyncio.run(main(server.url))
        assert server.accepted == 2


def test_a_cancelled_call_leaves_no_answer_to_the_next() -> None:
    asked, cancelled = threading.Event(), threading.Event()

    def slow(connection: Accepted) -> None:
        connection.tell_metadata()
        connection.read()
        asked.set()
        cancelled.wait()
        connection.answer({"query_id": 1, "output": "late", "default": False, "confidence": 1.0})

    async def main(url: str) -> None:
        client = AsyncQueries(url, ClientTls(Trust()))
        task = asyncio.ensure_future(client.predict("app", ROW))
        await asyncio.to_thread(asked.wait)
        task.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.predict("app", [1, 2])).output == 7
        await client.close()

    with scripted(slow, Accepted.predict) as server:
        asyncio.run(main(server.url))


def test_a_client_may_be_used_by_one_loop_after_another() -> None:
    async def main(client: AsyncQueries) -> None:
        assert (await client.predict("app", ROW)).output == 7
        for connection in client._connections._pools[asyncio.get_running_loop()].idle:
            connection.abort()

    def again(connection: Accepted) -> None:
        while True:
            connection.predict()

    with scripted(predictions, again, again) as server:
        client = AsyncQueries(server.url, ClientTls(Trust()))
        for _ in range(3):
            asyncio.run(main(client))
        assert (server.accepted, len(client._connections._pools)) == (3, 1)


def test_a_loop_of_another_thread_has_connections_of_its_own() -> None:
    def loop(client: AsyncQueries, values: range, wrong: list[object]) -> Callable[[], None]:
        async def main() -> None:
            for value in values:
                found = (await client.predict("app", np.full(2, float(value)))).output
                if found != value:
                    wrong.append((found, value))
            for connection in client._connections._pools[asyncio.get_running_loop()].idle:
                connection.abort()

        return lambda: asyncio.run(main())

    wrong: list[object] = []
    with scripted(echo, echo) as server:
        client = AsyncQueries(server.url, ClientTls(Trust()))
        threads = [threading.Thread(target=loop(client, range(start, start + 50), wrong)) for start in (0, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
