"""Which web pages may read the answers, and that nothing changes for who is no web page."""

import gc
import weakref

import pytest

from clipper.errors import InvalidArgument, Unauthorized
from clipper.settings.texts import read_origin
from clipper.worker.frontend.endpoint import Endpoint
from clipper.worker.frontend.http.cross_origin import Origins
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.http.port import Port
from tests.serving import Response
from tests.worker.frontend.fake_transport import Peer, later, run
from tests.worker.frontend.http_calls import ECHO, HELLO

SHOP = "https://shop.example"
ALLOW = "access-control-allow-origin"


def echo(origin: str | None, *headers: str, method: str = "POST", path: str = "/echo/predict") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *([] if origin is None else [f"Origin: {origin}"]), "Host: x", *headers]
    body = "" if method == "OPTIONS" else "hello"
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


def asked(port: Port, *requests: bytes) -> list[Response]:
    peer = Peer(port)
    peer.send(*requests)
    found = peer.responses
    peer.leave()
    return found


def test_without_allowed_origins_nothing_is_said_of_them() -> None:
    async def test(port: Port) -> None:
        for answer in asked(port, echo(SHOP), echo(SHOP)):
            assert answer.status == 200 and ALLOW not in answer.headers and "vary" not in answer.headers
        assert len(port.known_heads) == 1
        (refused,) = asked(port, echo(SHOP, "Access-Control-Request-Method: POST", method="OPTIONS"))
        assert refused.status == 405

    run(test)


@pytest.mark.parametrize("allowed", [None, ["https://other.example"], [SHOP], ["*"]])
def test_a_page_of_another_site_cannot_even_send_unless_it_is_allowed(allowed: list[str] | None) -> None:
    async def test(port: Port) -> None:
        port.origins = None if allowed is None else Origins(allowed)
        is_allowed = allowed in ([SHOP], ["*"])
        for _ in range(2):  # the second time its head would be known
            (answer,) = asked(port, echo(SHOP, "Sec-Fetch-Site: cross-site", "Content-Type: text/plain"))
            assert answer.status == (200 if is_allowed else 403)
        for site in ("same-origin", "same-site", "none"):
            (answer,) = asked(port, echo(SHOP, f"Sec-Fetch-Site: {site}"))
            assert answer.status == 200
        (page,) = asked(port, echo(SHOP, "Sec-Fetch-Site: cross-site", method="GET", path="/nothing"))
        assert page.status == 404

    run(test)


def test_exactly_the_allowed_origins_may_read() -> None:
    async def test(port: Port) -> None:
        port.origins = Origins([SHOP, "http://localhost:5173"])
        for origin in (SHOP, "http://localhost:5173"):
            for _ in range(2):  # the second time its head would be known
                (answer,) = asked(port, echo(origin))
                assert (answer.body, answer.headers[ALLOW], answer.headers["vary"]) == (HELLO, origin, "origin")
                assert "retry-after" in answer.headers["access-control-expose-headers"]
        for other in ("http://shop.example", "https://shop.example.evil", "https://SHOP.example", "null", ""):
            (answer,) = asked(port, echo(other))
            assert (answer.body, answer.headers["vary"]) == (HELLO, "origin") and ALLOW not in answer.headers

    run(test)


def test_every_origin_may_read_only_by_its_own_word() -> None:
    async def test(port: Port) -> None:
        port.origins = Origins(["*"])
        (answer,) = asked(port, echo("https://anything.example"))
        assert answer.headers[ALLOW] == "*" and "vary" not in answer.headers

    run(test)


def test_programs_are_answered_as_ever() -> None:
    async def test(port: Port) -> None:
        port.origins = Origins(["*"])
        answers = asked(port, ECHO, ECHO)
        assert [answer.body for answer in answers] == [HELLO, HELLO]
        assert not any(ALLOW in answer.headers for answer in answers)
        assert len(port.known_heads) == 1

    run(test)


def test_a_browser_may_ask_first_and_needs_no_key_for_that() -> None:
    async def test(port: Port) -> None:
        port.serve({}, _NeedsKey(), gone=[b"/echo/predict"])
        port.origins = Origins([SHOP])
        ask = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization, content-type")
        allowed, again = asked(port, *[echo(SHOP, *ask, method="OPTIONS")] * 2)
        assert (allowed.status, allowed.body) == (204, b"") and again.status == 204
        assert allowed.headers[ALLOW] == SHOP
        assert allowed.headers["access-control-allow-methods"] == "GET, POST"
        assert allowed.headers["access-control-allow-headers"] == "authorization, content-type"
        assert allowed.headers["access-control-max-age"] == "600"
        (bare,) = asked(port, echo(SHOP, ask[0], method="OPTIONS"))
        assert bare.status == 204 and "access-control-allow-headers" not in bare.headers
        (foreign,) = asked(port, echo("https://evil.example", *ask, method="OPTIONS"))
        assert foreign.status == 401 and ALLOW not in foreign.headers
        (no_question,) = asked(port, echo(SHOP, method="OPTIONS"))
        assert no_question.status == 401

    run(test)


class _NeedsKey:
    """Paths of which none is there without a key."""

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        raise Unauthorized("a key is needed")

    def why_not_found(self, path: bytes) -> str | None:
        return None


@pytest.mark.parametrize(
    "request_",
    [
        echo(SHOP, path="/absent/predict"),
        echo(SHOP, "Content-Length: 99999999999", path="/echo/predict").replace(b"Content-Length: 5\r\n", b""),
        echo(SHOP, "X: " + 70_000 * "x", "Y: y"),
    ],
)
def test_a_page_may_read_why_it_is_refused(request_: bytes) -> None:
    async def test(port: Port) -> None:
        port.origins = Origins([SHOP])
        (answer,) = asked(port, request_)
        assert answer.status >= 400 and answer.headers[ALLOW] == SHOP

    run(test)


def test_answers_keep_their_order_and_marks() -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        port.origins = Origins([SHOP])
        peer = Peer(port)
        for origin in (SHOP, None, SHOP):
            peer.send(echo(origin, path="/later/predict"))
        for index in (2, 1, 0):
            endpoint.answer(index)
        assert [answer.headers.get(ALLOW) for answer in peer.responses] == [SHOP, None, SHOP]
        assert [answer.headers["content-length"] for answer in peer.responses] == ["12"] * 3

    run(test, paths)


def test_continue_carries_no_mark() -> None:
    async def test(port: Port) -> None:
        port.origins = Origins([SHOP])
        peer = Peer(port)
        peer.send(echo(SHOP, "Expect: 100-continue"))
        assert peer.transport.written.startswith(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\naccess-control-allow"
        )

    run(test)


def test_a_page_that_has_gone_needs_no_collector() -> None:
    endpoint, paths = later()

    async def test(port: Port) -> None:
        port.origins = Origins([SHOP])
        peer = Peer(port)
        peer.send(echo(SHOP, path="/later/predict"))
        gone = weakref.ref(peer.transport)
        gc.disable()
        try:
            peer.leave()
            endpoint.exchanges.clear()
            del peer
            assert gone() is None
        finally:
            gc.enable()

    run(test, paths)


@pytest.mark.parametrize("origin", ["*", SHOP, "http://localhost:5173", "http://[::1]:8044", "app://clipper"])
def test_origins(origin: str) -> None:
    assert read_origin(origin) == origin


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "null", "**", "shop.example", "https://", "https://shop.example/", "https://Shop.example"),
        *("https://shop.example:443", "http://a:80", "https://a b", "https://a\n", "https://*.example"),
    ],
)
def test_what_is_no_origin(wrong: str) -> None:
    with pytest.raises(InvalidArgument, match="is not an origin: expected SCHEME://HOST"):
        read_origin(wrong)
