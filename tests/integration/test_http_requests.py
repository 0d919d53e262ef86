"""Requests to the query port as they should be, on real sockets."""

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.integration.http_system import ONE
from tests.serving import Client, Serving, post
from tests.waiting import TIMEOUT_S


def test_keep_alive(client: Client) -> None:
    answers = [client.ask("/sum/predict", {"input": [number, 1]}).json["output"] for number in range(200)]
    assert answers == [number + 1 for number in range(200)]


def test_pipelined_slow_and_fast_answers_come_in_order(client: Client) -> None:
    slow, fast = post("/sleepy/predict", {"input": [0.05]}), post("/sum/predict", {"input": [7]})
    missing = b"GET /nowhere HTTP/1.1\r\n\r\n"
    client.send((slow + fast + missing + fast + slow) * 2)
    outputs = [client.read().json.get("output") for _ in range(10)]
    assert outputs == [0.05, 7, None, 7, 0.05] * 2


def test_thousands_of_pipelined_requests(client: Client) -> None:
    count = 5000
    data = b"".join(post("/sum/predict", {"input": [number]}) for number in range(count))
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    assert [client.read().json["output"] for _ in range(count)] == list(range(count))
    sender.join()


def test_request_split_at_every_byte(client: Client) -> None:
    for middle in range(1, len(ONE)):
        client.send(ONE[:middle])
        client.send(ONE[middle:])
        assert client.read().json["output"] == 6


def test_chunked_body(client: Client) -> None:
    body = json.dumps({"input": [1, 2, 3]}).encode()
    head = b"POST /sum/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in range(1, len(body) + 1):
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        client.send(head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n")
        assert client.read().json["output"] == 6


def test_expect_continue(client: Client) -> None:
    request = post("/sum/predict", {"input": [1, 2]}, Expect="100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.read().status == 100
    client.send(body)
    assert client.read().json["output"] == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_in_the_readme(system: Serving, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{system.worker.port}/sum/predict"
    # Over 1 MB curl asks first, with Expect: 100-continue.
    for body in ('{"input": [1, 2]}', json.dumps({"input": [1] * 500_000})):
        (tmp_path / "body").write_text(body)
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", url, "-d", f"@{tmp_path / 'body'}"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S)
        assert json.loads(done.stdout)["output"] == sum(json.loads(body)["input"])


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "image/png", "", "application/json"]
)
def test_content_type_is_not_looked_at(client: Client, kind: str) -> None:
    assert client.ask("/sum/predict", {"input": [1]}, Content_Type=kind).json["output"] == 1


def test_absolute_form_of_the_url(client: Client) -> None:
    assert client.ask("http://somewhere:1337/sum/predict", {"input": [1]}).json["output"] == 1


def test_http_1_0_closes_after_the_answer(client: Client) -> None:
    client.send(ONE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host", b"Connection: keep-alive\r\nHost"))
    response = client.read()
    assert (response.json["output"], response.headers["connection"]) == (6, "close")
    assert client.read_to_end() == b""


def test_connection_close(client: Client) -> None:
    client.send(post("/sum/predict", {"input": [1]}, Connection="close"))
    response = client.read()
    assert (response.json["output"], response.headers["connection"]) == (1, "close")
    assert client.read_to_end() == b""


def test_offer_of_another_protocol_is_ignored(client: Client) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    for number in range(3):
        assert client.ask("/sum/predict", {"input": [number, 1]}, **headers).json["output"] == number + 1
    client.send(b"GET /health/live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + ONE)
    assert client.read().json == {"status": "live"}
    assert client.read().json["output"] == 6


def test_head_gets_no_body(client: Client) -> None:
    client.send(b"HEAD /health/live HTTP/1.1\r\n\r\nHEAD /sum/predict HTTP/1.1\r\n\r\nHEAD /x HTTP/1.1\r\n\r\n" + ONE)
    answers = [client.read("HEAD") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 405, 404]
    assert all(int(answer.headers["content-length"]) > 0 for answer in answers)
    assert client.read().json["output"] == 6
