"""Keys and limits of the query port, through a real server."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clipper.client import Clipper
from clipper.errors import Forbidden, InvalidArgument, NotFound, TooLarge, TooManyRequests, Unauthorized
from tests.serving import Client, Response, post
from tests.supervisor.live_server import APP, NO_TLS, Server, answering, processes_of
from tests.waiting import TIMEOUT_S, until

CLIPPER = "from clipper.cli.main import main; main()"
ROW = {"input": [1, 2]}
# Answers when the file go is there.
HELD = """
import os, time
def predict(inputs):
    while not os.path.exists({go!r}):
        time.sleep(0.005)
    return [1] * len(inputs)
"""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It asks for keys; its applications are app and other."""
    server = Server(tmp_path_factory.mktemp("closed") / "home", "--api-keys")
    try:
        server.start()
        assert server.deploy("m", answering("one"), input_type="float64[2]", cache=False)["state"] == "ready"
        for name in ("app", "other"):
            server.call("POST", "/applications", {**APP, "name": name})
        yield server
        assert server.stop() == 0
        assert processes_of(server.home) == {}
    finally:
        server.clean_up()


def connect(server: Server) -> Client:
    return Client(int(server.place.query_url.rpartition(":")[2]))


def make_key(server: Server, name: str, **fields: object) -> str:
    made = server.call("POST", "/keys", {"name": name, **fields})["key"]
    assert isinstance(made, str)
    return made


def ask(client: Client, key: str | None, path: str = "/app/predict", body: object = ROW) -> Response:
    return client.ask(path, body, **({} if key is None else {"Authorization": f"Bearer {key}"}))


def codes(server: Server, *headers: str, path: str = "/app/predict") -> tuple[int, str]:
    """Status and code of the answer to a query with these headers, on a connection of its own."""
    body = b'{"input":[1,2]}'
    lines = "".join(f"{header}\r\n" for header in headers)
    with connect(server) as client:
        client.send(f"POST {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = client.read()
    if answer.status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="clipper"'
    return answer.status, answer.json.get("error", "")


def test_only_who_shows_a_key_is_answered(closed: Server) -> None:
    key = make_key(closed, "first")
    assert codes(closed) == (401, "unauthorized")
    assert codes(closed, f"Authorization: Bearer {key}") == (200, "")
    assert codes(closed, f"authorization:  bearer {key} ") == (200, "")
    for shown in (f"Bearer x{key}", f"Bearer {key[:-1]}", f"Basic {key}", key, "Bearer", "", f"Bearer {closed.token}"):
        assert codes(closed, f"Authorization: {shown}") == (401, "unauthorized"), shown
    assert codes(closed, "Authorization: Bearer " + "k" * 8192) == (401, "unauthorized")
    assert codes(closed, "Authorization: Bearer é") == (401, "unauthorized")
    twice = (f"Authorization: Bearer {key}", "Authorization: Bearer x")
    assert codes(closed, *twice) == codes(closed, *reversed(twice)) == (400, "malformed_request")
    for path in ("/app/observe", "/app/update", "/app/predict/", "http://host/app/predict?a=b"):
        assert codes(closed, path=path) == (401, "unauthorized"), path
    # The server parses a request that offers another protocol twice.
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert codes(closed, *offer) == (401, "unauthorized")
    assert codes(closed, *offer, f"Authorization: Bearer {key}") == (200, "")
    live = httpx.get(f"{closed.place.query_url}/health/live", timeout=TIMEOUT_S, verify=NO_TLS)
    assert live.json() == {"status": "live"}


def test_a_body_is_not_taken_of_who_has_no_key(closed: Server) -> None:
    with connect(closed) as client:
        client.send(b"POST /app/predict HTTP/1.1\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        assert client.read().status == 401
    with connect(closed) as client:  # nor is one that is too large told how large it may be
        client.send(b"POST /app/predict HTTP/1.1\r\nContent-Length: 500000000\r\n\r\n")
        answer = client.read()
        assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_a_key_is_for_its_applications_only(closed: Server) -> None:
    key = make_key(closed, "bound", applications=["other"])
    with connect(closed) as client:
        assert ask(client, key, "/other/predict").status == 200
        refused = ask(client, key)
    assert (refused.status, refused.json["error"]) == (403, "forbidden")
    assert refused.json["cause"] == "key 'bound' is not for application 'app'"
    # The same, byte for byte, as what was answered before, but for the path.
    with connect(closed) as client:
        client.send(post("/other/predict", ROW, Authorization=f"Bearer {key}") * 3)
        assert [client.read().status for _ in range(3)] == [200] * 3


def test_a_key_expires_on_connections_that_are_open(closed: Server) -> None:
    key = make_key(closed, "guest", expires_at=time.time() + 1e6)
    with connect(closed) as client:
        for _ in range(3):  # by then the head is known
            assert ask(client, key).status == 200
        # With the same secret it is the same key, whose time is kept if it is not given.
        again = {"name": "guest", "key": key, "replace": True}
        assert closed.call("POST", "/keys", {**again, "max_in_flight": 9})["expires_at"] > time.time() + 1e5
        # A time that is over is refused, so it has to be ahead for as long as a busy machine takes to be asked.
        closed.call("POST", "/keys", {**again, "expires_at": time.time() + 3})
        until(lambda: ask(client, key).status == 401)
        cause = ask(client, key).json["cause"]
    assert cause.startswith("key 'guest' expired on 20") and "clipper key create" in cause
    problems = closed.call("GET", "/status")["problems"]
    assert [line for line in problems if line.startswith("key 'guest' has expired")]
    for wrong in (1, time.time() - 1, 1e300, "soon"):
        closed.call("POST", "/keys", {"name": "wrong", "expires_at": wrong}, status=400)
    closed.call("DELETE", "/keys/guest")


def test_a_revoked_key_is_refused_on_connections_that_are_open(closed: Server) -> None:
    key, other = make_key(closed, "going"), make_key(closed, "staying")
    with connect(closed) as client, connect(closed) as stays:
        for _ in range(5):  # by then the head is known
            assert ask(client, key).status == 200
            assert ask(stays, other).status == 200
        closed.call("DELETE", "/keys/going")
        refused = ask(client, key)
        assert (refused.status, refused.json["error"]) == (401, "unauthorized")
        assert ask(stays, other).status == 200
    # One that is made anew under the name is another.
    again = make_key(closed, "going")
    assert codes(closed, f"Authorization: Bearer {key}")[0] == 401
    assert codes(closed, f"Authorization: Bearer {again}")[0] == 200


def test_a_key_that_is_revoked_while_a_body_comes_is_refused(closed: Server) -> None:
    key = make_key(closed, "slow")
    request = post("/app/predict", ROW, Authorization=f"Bearer {key}")
    with connect(closed) as client:
        assert ask(client, key).status == 200
        client.send(request[:-3])
        assert ask_other(closed).status == 401  # the worker has read what was sent before
        closed.call("DELETE", "/keys/slow")
        client.send(request[-3:])
        assert client.read().status == 401


def ask_other(server: Server) -> Response:
    with connect(server) as client:
        return ask(client, None)


def test_the_client_and_commands_show_a_key(closed: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPPER_API_KEY", raising=False)
    with Clipper.connect(home=closed.home) as clipper:
        key = clipper.create_key("mine", applications=["app"], max_per_second=1000).key
        with pytest.raises(Unauthorized, match="application 'app' needs a key, as the header"):
            clipper.predict("app", [1, 2])
        listed = next(filter(lambda one: one.name == "mine", clipper.keys()))
        assert (listed.applications, listed.max_in_flight, listed.max_per_second) == (("app",), None, 1000)
        with pytest.raises(NotFound):
            clipper.create_key("x", applications=["nothing"])
        with pytest.raises(InvalidArgument, match="max_in_flight is 0: expected a number from 1 to 1000000"):
            clipper.create_key("x", max_in_flight=0)
        with pytest.raises(InvalidArgument, match="max_per_second is 0"):
            clipper.change_application("app", max_per_second=0)
    with Clipper.connect(home=closed.home, api_key=key) as clipper:
        assert clipper.predict("app", [1, 2]).output == "one"
        with pytest.raises(Forbidden):
            clipper.predict("other", [1, 2])
        with pytest.raises(NotFound, match="key 'nobody' does not exist"):
            clipper.revoke_key("nobody")
    monkeypatch.setenv("CLIPPER_API_KEY", key)
    command = [sys.executable, "-c", CLIPPER, "predict", "app", "[1,2]", "--home", str(closed.home)]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == '"one"\n'
    told = subprocess.run([*command, "--api-key", "wrong"], capture_output=True, check=False, text=True)
    assert told.returncode == 1
    assert "this server does not know the key" in told.stderr


def test_a_key_is_told_once_and_nowhere_else(closed: Server) -> None:
    key = make_key(closed, "secret", max_per_second=1000)
    assert codes(closed, f"Authorization: Bearer {key}")[0] == 200
    assert 'clipper_limit_in_flight{name="secret",of="key"} 0.0' in closed.metrics
    told = [closed.metrics, str(closed.call("GET", "/keys"))]
    for pid in (*processes_of(closed.home), closed.process.pid if closed.process else 0):
        told += [Path(f"/proc/{pid}/{what}").read_bytes().decode("latin-1") for what in ("cmdline", "environ")]
    assert not [text for text in told if key in text] and closed.files_with(key) == set()


def test_a_key_may_be_given_and_replaced_at_once(closed: Server) -> None:
    first, second = "given~first-" + "a" * 30, "given~second-" + "b" * 30
    assert make_key(closed, "given", key=first, applications=["app"]) == first
    with connect(closed) as client:
        assert ask(client, first).status == 200
        closed.call("POST", "/keys", {"name": "given", "key": second}, status=409)
        assert make_key(closed, "given", key=second, replace=True) == second
        assert ask(client, first).status == 401
    # A client that shows no valid key loses the connection.
    with connect(closed) as client:
        assert ask(client, second).status == 200
        # A restriction that the replacement does not repeat is gone.
        assert ask(client, second, "/other/predict").status == 200
    (listed,) = [one for one in closed.call("GET", "/keys") if one["name"] == "given"]
    assert listed["fingerprint"] == hashlib.sha256(second.encode()).hexdigest()[:8]
    same = closed.call("POST", "/keys", {"name": "another", "key": second}, status=409)
    assert second not in same["cause"]


@pytest.mark.parametrize("key", ["", "short", "k" * 513, "with a space " + "k" * 40, "é" * 40, "k" * 40 + "\n"])
def test_a_given_key_that_no_client_could_send_is_refused(closed: Server, key: str) -> None:
    refused = closed.call("POST", "/keys", {"name": "odd", "key": key}, status=400)
    assert refused["error"] == "invalid_argument" and (not key or key not in refused["cause"])


def test_keys_survive_a_restart_and_the_end_of_a_worker(server: Server) -> None:
    server.with_options("--api-keys").start()
    assert server.deploy("m", answering("one"), input_type="float64[2]")["state"] == "ready"
    server.call("POST", "/applications", APP)
    key = make_key(server, "k", max_in_flight=5)
    (pid,) = server.kill_workers()
    assert codes(server, f"Authorization: Bearer {key}")[0] == 200
    assert codes(server)[0] == 401
    # A supervisor that is killed leaves the worker serving as it was; the next one asks for no keys. It does not go on
    # with a worker of a Clipper from before there were keys.
    server.kill()
    note = server.home / "run" / "worker-0.json"
    assert '"knows_keys":true' in note.read_text()
    note.write_text(note.read_text().replace('"knows_keys":true', '"knows_keys":false'))
    assert codes(server, f"Authorization: Bearer {key}")[0] == 200
    assert codes(server)[0] == 401
    server.with_options().start()
    until(lambda: pid not in server.worker_pids)
    server.until_ready()
    assert codes(server)[0] == 200
    server.call("PATCH", "/applications/app", {"require_key": True})
    assert codes(server)[0] == 401
    assert codes(server, f"Authorization: Bearer {key}")[0] == 200


def test_an_application_may_ask_for_keys_by_itself(shared: Server) -> None:
    key = make_key(shared, "own")
    with connect(shared) as client:
        assert [ask(client, None).status for _ in range(3)] == [200] * 3
        changed = shared.call("PATCH", "/applications/app", {"require_key": True})
        assert changed["require_key"] is True
        assert ask(client, key).status == 200
        assert ask(client, None).status == 401
    shared.call("PATCH", "/applications/app", {"require_key": False})
    with connect(shared) as client:  # who needs none may show anything
        assert ask(client, "anything").status == 200
    shared.call("DELETE", "/keys/own")


def test_no_more_queries_a_second_than_the_limit(shared: Server) -> None:
    """Pipelined and in batches; within the bucket's tolerance whatever the machine's speed."""
    shared.call("POST", "/applications", {**APP, "name": "slow", "max_per_second": 0.01})
    with connect(shared) as client:
        client.send(post("/slow/predict", ROW) * 40)
        answers = [client.read() for _ in range(40)]
        assert [answer.status for answer in answers] == [200] + [429] * 39
        refused = answers[-1]
        assert refused.json["error"] == "too_many_requests"
        assert 1 < int(refused.headers["retry-after"]) <= 100
        assert "application 'slow' may send 0.01 queries a second: try again in" in refused.json["cause"]
        # Before the body is read: it is no JSON.
        assert ask(client, None, "/slow/predict", b"x" * 5000).status == 429
        assert ask(client, None, "/slow/observe", b"x").status == 429
        # Feedback and each input of a batch count as queries. A request that is refused counts as one.
        shared.call("PATCH", "/applications/slow", {"max_per_second": None})
        shared.call("PATCH", "/applications/slow", {"max_per_second": 0.01, "max_in_flight": 5})
        large = ask(client, None, "/slow/predict", {"input_batch": [[1, 2]] * 2})
        assert (large.status, large.json["error"]) == (413, "too_large")
        assert "the request has 2 queries, and application 'slow' may have 1 in a second" in large.json["cause"]
        shared.call("PATCH", "/applications/slow", {"max_per_second": None})
        shared.call("PATCH", "/applications/slow", {"max_per_second": 10})
        feedback = [{"input": [1, 2], "label": "one"}] * 6
        assert ask(client, None, "/slow/observe", {"observations": feedback}).status == 413
        batch = ask(client, None, "/slow/predict", {"input_batch": [[1, 2]] * 5})
        assert [one["output"] for one in batch.json["batch_predictions"]] == ["one"] * 5
    assert "too_many_requests" in shared.metrics
    with Clipper.connect(home=shared.home) as clipper:
        clipper.change_application("slow", max_per_second=0.01, max_in_flight=None)
        with pytest.raises(TooManyRequests, match="try again in") as limited:
            for _ in range(20):
                clipper.predict("slow", [1, 2])
        assert limited.value.retry_after_s > 1
        with pytest.raises(TooManyRequests):
            clipper.observe("slow", input=[1, 2], label="one")
        clipper.change_application("slow", max_per_second=None, max_in_flight=4)
        with pytest.raises(TooLarge):
            clipper.predict_batch("slow", [[1, 2]] * 5)
    shared.call("DELETE", "/applications/slow")


def test_no_more_queries_in_flight_than_the_limit(shared: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    held = HELD.format(go=str(go))
    assert shared.deploy("held", held, input_type="float64[2]", cache=False)["state"] == "ready"
    fields = {"name": "held", "links": [{"model": "held"}], "slo_ms": 60_000, "max_in_flight": 4}
    shared.call("POST", "/applications", {**APP, **fields})

    def in_flight() -> str:
        line = next(
            line for line in shared.metrics.splitlines() if line.startswith('clipper_limit_in_flight{name="held"')
        )
        return line.rpartition(" ")[2]

    query = post("/held/predict", ROW)
    with connect(shared) as client, connect(shared) as other, connect(shared) as gone:
        client.send(query * 2)
        other.send(post("/held/predict", {"input_batch": [[1, 2], [3, 4]]}))
        until(lambda: in_flight() == "4.0")
        refused = ask(gone, None, "/held/predict")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "may have 4 queries in flight, and has 4" in refused.json["cause"]
        # More are let in at once when the limit is changed, also while they wait.
        shared.call("PATCH", "/applications/held", {"max_in_flight": 5})
        gone.send(query)
        until(lambda: in_flight() == "5.0")
        shared.call("PATCH", "/applications/held", {"max_in_flight": 3})
        assert ask_once(shared, query).status == 429
        # The queries of a client that goes away are in flight no more.
        gone.reset()
        until(lambda: in_flight() == "4.0")
        other.reset()
        until(lambda: in_flight() == "2.0")
        assert ask_once(shared, post("/held/predict", {"input_batch": [[1, 2]] * 4})).status == 413
        assert ask_once(shared, post("/held/predict", {"input_batch": [[1, 2]] * 2})).status == 429
        assert in_flight() == "2.0"
        go.touch()
        assert [client.read().status for _ in range(2)] == [200, 200]
        assert in_flight() == "0.0"
        assert ask_once(shared, post("/held/predict", {"input_batch": [[1, 2]] * 3})).status == 200
    shared.call("DELETE", "/applications/held")
    shared.call("DELETE", "/models/held")


def ask_once(server: Server, request: bytes) -> Response:
    with connect(server) as client:
        client.send(request)
        return client.read()


def test_a_key_has_limits_of_its_own(closed: Server) -> None:
    slow, fast = make_key(closed, "few", max_per_second=0.01), make_key(closed, "many")
    with connect(closed) as client:
        requests = [post("/app/predict", ROW, Authorization=f"Bearer {key}") for key in (slow, fast) * 10]
        client.send(b"".join(requests))
        answers = [client.read() for _ in requests]
        assert [answer.status for answer in answers] == [200, 200] + [429, 200] * 9
        assert "key 'few' may send 0.01 queries a second" in answers[2].json["cause"]
        # Over all applications.
        assert ask(client, slow, "/other/predict").status == 429
    assert 'clipper_limit_refused_total{name="few",of="key"} 10.0' in closed.metrics
