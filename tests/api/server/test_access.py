"""A request's head decides whether it may call the management API."""

import pytest

from clipper.api.server.access import Access, Holder, Hosts, allowed_hosts
from clipper.errors import ClipperError, Forbidden, MalformedRequest, Unauthorized, UnsupportedMediaType

ADMIN, READ = "a" * 40, "r" * 40
LOCAL = Hosts("127.0.0.1")

HOLDERS = {ADMIN: Holder("operator", "admin"), READ: Holder("grafana", "read")}


def check(
    method: str = "GET", path: str = "/status", hosts: Hosts = LOCAL, open_metrics: bool = False, **headers: str | None
) -> str | None:
    """A request as the CLI makes it, but for ``headers``; None leaves one out. Return the role of who asks."""
    given = {"host": "127.0.0.1:1338", "authorization": f"Bearer {ADMIN}", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items() if value is not None]
    access = Access(hosts, HOLDERS.get, open_metrics)  # type: ignore[arg-type]
    holder = access.check(method, path, raw)
    return None if holder is None else holder.role


def test_who_has_the_token_may_do_all() -> None:
    assert check() == "admin"
    assert check(path="/keys", authorization=f"Bearer {READ}") == "read"
    assert check(path="/health/live", authorization=None) is None
    check("POST", "/applications", content_type="application/json; charset=utf-8", content_length="2")
    check("PUT", "/artifacts/ab", content_type="application/x-tar", transfer_encoding="chunked")
    check("POST", "/stop")
    check("DELETE", "/tokens/x", content_length="0")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", f"Basic {ADMIN}", ADMIN, "Bearer x", "Bearer ä"]
)
def test_others_may_do_nothing(authorization: str | None) -> None:
    for method, path in (("GET", "/status"), ("POST", "/stop"), ("GET", "/metrics"), ("GET", "/nothing"), ("GET", "/")):
        with pytest.raises(Unauthorized, match="token") as refused:
            check(method, path, authorization=authorization)
        assert ADMIN not in str(refused.value)


def test_what_needs_no_token() -> None:
    for path in ("/health/live", "/health/ready", "/schema", "/schema/openapi.json"):
        check("GET", path, authorization=None)
    check("GET", "/metrics", open_metrics=True, authorization=None)
    for path in ("/health", "/health/live/x", "/schema/../status", "/metrics/x"):
        with pytest.raises(Unauthorized):
            check("GET", path, open_metrics=True, authorization=None)


def test_pages_need_no_token_and_what_lies_beside_them_does() -> None:
    access = Access(LOCAL, HOLDERS.get, False, frozenset({"/", "/dashboard/"}))  # type: ignore[arg-type]
    for path in ("/", "/dashboard/"):
        access.check("GET", path, [(b"host", b"127.0.0.1:1338")])
        with pytest.raises(Forbidden):
            access.check("GET", path, [(b"host", b"evil.example")])
    for path in ("/dashboard", "/dashboard/x", "//", "/dashboard/../status"):
        with pytest.raises(Unauthorized):
            access.check("GET", path, [(b"host", b"127.0.0.1:1338")])


def test_a_reader_may_look_and_no_more() -> None:
    reads = f"bearer {READ}"
    for path in ("/status", "/metrics", "/models/m/logs", "/applications/a/policy"):
        check("GET", path, authorization=reads)
    for method, path in (
        ("POST", "/stop"),
        ("HEAD", "/artifacts/ab"),
        ("PATCH", "/applications/a"),
        ("GET", "/tokens"),
        ("GET", "//tokens/"),
    ):
        with pytest.raises(Forbidden, match="role admin"):
            check(method, path, authorization=reads)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:9999", "LOCALHOST", "[::1]:1338", "::1", "127.8.9.1:1338", None]
)
def test_hosts_of_a_loopback_port(host: str | None) -> None:
    check(host=host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:1338", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "[", ":"],
)
def test_other_hosts_are_refused_whoever_asks(host: str) -> None:
    for path in ("/status", "/health/live", "/schema"):
        with pytest.raises(Forbidden, match="--allowed-host"):
            check("GET", path, host=host)


def test_hosts_of_a_port_that_others_reach() -> None:
    everywhere = allowed_hosts("0.0.0.0", "box", ["clipper.example"])
    for host in ("10.0.0.1:1338", "[fe80::1]", "box", "BOX:1338", "clipper.example:443", "localhost"):
        check(host=host, hosts=everywhere)
    with pytest.raises(Forbidden):
        check(host="evil.example", hosts=everywhere)
    one = allowed_hosts("10.0.0.1", "box", [])
    check(host="10.0.0.1:1338", hosts=one)
    check(host="inner.example", hosts=allowed_hosts("inner.example", "box", []))
    for host in ("10.0.0.2", "127.0.0.1", "localhost"):
        with pytest.raises(Forbidden):
            check(host=host, hosts=one)
    # Nobody comes to a loopback port by the machine's name but through something that an operator knows of.
    with pytest.raises(Forbidden):
        check(host="box", hosts=allowed_hosts("127.0.0.1", "box", []))


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://127.0.0.1:8080",
        "http://127.0.0.1",
        "file://",
        "http://[",
        "",
        "ws://127.0.0.1:1338",
    ],
)
def test_pages_of_other_sites_are_refused_whatever_they_know(origin: str) -> None:
    for path in ("/status", "/health/live", "/schema"):
        with pytest.raises(Forbidden, match="page of"):
            check("GET", path, origin=origin)


def test_a_page_of_the_servers_own_may() -> None:
    check(origin="http://127.0.0.1:1338")
    check(
        host="clipper.example", origin="https://Clipper.example", hosts=allowed_hosts("::", "box", ["clipper.example"])
    )


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/stop", {"content_type": "text/plain"}),
        ("POST", "/applications", {"content_type": "text/plain", "content_length": "10"}),
        ("POST", "/applications", {"content_length": "10"}),
        ("POST", "/applications", {"transfer_encoding": "chunked"}),
        ("POST", "/applications", {"content_type": "application/x-www-form-urlencoded", "content_length": "1"}),
        ("POST", "/applications", {"content_type": "multipart/form-data; boundary=x", "content_length": "1"}),
        ("POST", "/applications", {"content_type": "application/x-tar", "content_length": "1"}),
        ("PUT", "/artifacts/ab", {"content_type": "application/json", "content_length": "1"}),
        ("GET", "/health/live", {"content_length": "1"}),
    ],
)
def test_bodies_of_other_kinds_are_refused(method: str, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType, match="expected application/"):
        check(method, path, **headers)


def test_a_header_that_comes_twice() -> None:
    access = Access(LOCAL, HOLDERS.get, False)  # type: ignore[arg-type]
    for name in (b"host", b"origin", b"authorization", b"content-type"):
        twice = [(b"host", b"localhost"), (b"authorization", b"Bearer " + ADMIN.encode()), (name, b"x"), (name, b"x")]
        with pytest.raises(ClipperError) as refused:
            access.check("GET", "/status", twice)
        assert isinstance(refused.value, MalformedRequest)
