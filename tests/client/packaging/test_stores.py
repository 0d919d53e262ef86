"""Models fetched over HTTP from a server that does what it should not; and packing what was fetched."""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from clipper.client.packaging import stores, web
from clipper.client.packaging.addresses import Address, read_address
from clipper.client.packaging.models import look, package
from clipper.client.packaging.stores import Fetched, fetch
from clipper.errors import InvalidArgument, NotFound, TooLarge, Unavailable
from clipper.settings.secret_files import SecretFiles

CONTENT = bytes(range(256)) * 4096
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Store)
        asked = {name.lower(): value for name, value in self.headers.items()}
        server.asked.append(asked | {"path": self.path, "method": self.command})
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        answer(self)

    do_HEAD = do_GET  # noqa: N815  # the name that the library calls

    def say(self, status: int, body: bytes, **headers: str) -> None:
        """``length``: what the answer says that its length is."""
        length = headers.pop("length", str(len(body)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", length)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


class Store(ThreadingHTTPServer):
    """``asked``: the headers and path of each request. ``answers`` are given in turn, the last for ever."""

    daemon_threads = True
    answers: ClassVar[list[Answer]] = []

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/m.onnx"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPPER_CACHE", str(tmp_path))
    return tmp_path / "downloads"


@contextmanager
def store(*answers: Answer) -> Iterator[Store]:
    server = Store()
    server.answers = list(answers)  # type: ignore[misc]  # of this store alone
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetched(url: str, **credentials: str) -> Fetched:
    address = read_address(url)
    assert address is not None
    return fetch(address, credentials, lambda _: None)


def whole(handler: Handler) -> None:
    handler.say(200, CONTENT, ETag='"1"')


def rest(handler: Handler) -> None:
    """As a server that knows ranges."""
    wanted = handler.headers["Range"]
    if wanted is None:
        whole(handler)
        return
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    assert handler.headers["If-Range"] == '"1"'
    handler.say(206, CONTENT[start:], ETag='"1"', Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")


def half(handler: Handler) -> None:
    handler.say(200, CONTENT[: len(CONTENT) // 2], ETag='"1"', length=str(len(CONTENT)))


def test_a_file_is_fetched_once_and_its_source_pins_its_content(cache: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    with store(whole) as server:
        found = fetched(server.url)
        assert found.path.read_bytes() == CONTENT and found.path.name == "m.onnx"
        assert found.source == f"{server.url}#sha256={digest}" and found.warning is None
        assert fetched(found.source).path == found.path
        with pytest.raises(InvalidArgument, match=f"has the digest {digest}: expected {'0' * 64}"):
            fetched(f"{server.url}#sha256={'0' * 64}")


def test_one_command_at_a_time_fetches_an_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "TURN_TIMEOUT_S", 0.1)
    told: list[str] = []
    with store(whole) as server:
        address = read_address(server.url)
        assert address is not None
        other = os.open(stores.Fetch(address, cache, told.append).folder(""), os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another command has fetched"):
            fetch(address, {}, told.append)
        os.close(other)
        assert fetch(address, {}, told.append).path.read_bytes() == CONTENT
    assert told[1].startswith("waiting for another command")


def test_a_download_that_breaks_off_goes_on_where_it_was(cache: Path) -> None:
    with store(half, rest) as server:
        assert fetched(server.url).path.read_bytes() == CONTENT
        assert [one.get("range") for one in server.asked] == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_without_ranges_sends_all_again(cache: Path) -> None:
    with store(half, whole) as server:
        assert fetched(server.url).path.read_bytes() == CONTENT
        assert [one.get("range") for one in server.asked] == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_later_command_goes_on_with_what_an_earlier_one_left(cache: Path) -> None:
    with store(half) as server:
        with pytest.raises(Unavailable, match="to go on where it broke off"):
            fetched(server.url)
        server.answers[:] = [rest]
        assert fetched(server.url).path.read_bytes() == CONTENT
        assert server.asked[-1]["range"] == f"bytes={len(CONTENT) // 2}-"


def test_one_without_a_revision_begins_anew(cache: Path) -> None:
    def unnamed_half(handler: Handler) -> None:
        handler.say(200, CONTENT[:100], length=str(len(CONTENT)))

    with store(unnamed_half, lambda handler: handler.say(200, CONTENT)) as server:
        assert fetched(server.url).path.read_bytes() == CONTENT
        assert [one.get("range") for one in server.asked] == [None, None]


def changed(handler: Handler) -> None:
    handler.say(200, CONTENT[::-1], ETag='"2"')


def lied_longer(handler: Handler) -> None:
    handler.say(200, CONTENT, ETag='"1"', length=str(len(CONTENT) + 1))


def endless(handler: Handler, *, is_begun: bool = False) -> None:
    """Says no length, and does not end."""
    if not is_begun:
        handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 20))
    except OSError:
        handler.close_connection = True


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ([half, changed], Unavailable, "has changed while it was fetched"),
        ([lied_longer], Unavailable, "cannot be fetched"),
        ([lambda handler: handler.say(404, b"")], NotFound, "there is no http://127"),
        ([lambda handler: handler.say(403, b"")], Unavailable, "is refused with 403"),
        ([lambda handler: handler.say(503, b"")], Unavailable, "the server answers 503"),
        ([lambda handler: handler.say(302, b"", Location="/m.onnx")], Unavailable, "TooManyRedirects"),
        ([lambda handler: handler.say(200, b"x", ETag='"1"', length=str(1 << 40))], TooLarge, "has 1 files of"),
        ([endless], TooLarge, "expected at most"),
        ([lambda handler: handler.wfile.write(b"this is no HTTP\r\n\r\n")], Unavailable, "RemoteProtocolError"),
    ],
)
def test_a_server_that_misbehaves(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Answer], error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(stores, "MAX_ARTIFACT_BYTES", 20_000_000)
    with store(*answers) as server, pytest.raises(error, match=message):
        fetched(server.url)
    assert not list(cache.rglob("m.onnx"))


def test_what_is_too_large_leaves_room_on_the_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says no length and does not end must fill neither an artifact's bound nor the disk."""

    def named_endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"1"')
        endless(handler, is_begun=True)

    def usage(_: object) -> object:
        written = sum(each.stat().st_size for each in cache.rglob("*") if each.is_file())
        return SimpleNamespace(free=20_000_000 - written)

    monkeypatch.setattr("shutil.disk_usage", usage)
    for answer in (endless, named_endless):
        with store(answer) as server, pytest.raises(TooLarge, match="left: name another folder"):
            fetched(server.url)
        assert not [each for each in cache.rglob("*") if each.is_file()]


def test_a_store_that_is_down_or_says_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_TIMEOUT_S", 0.2)
    released = threading.Event()
    with store(lambda _: released.wait() and None) as server:
        with pytest.raises(Unavailable, match="ReadTimeout"):
            fetched(server.url)
        released.set()
    with pytest.raises(Unavailable, match="ConnectError"):
        fetched(server.url)


def test_a_store_that_sends_a_byte_now_and_then_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "STALL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(stores, "LEAST_BYTES_PER_S", 1e12)

    def dripping(handler: Handler) -> None:
        handler.send_response(200)
        endless(handler, is_begun=True)

    with store(dripping) as server, pytest.raises(Unavailable, match=r"it sent \d+ bytes in \d+ s"):
        fetched(server.url)


def test_credentials_of_one_thread_reach_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def revision(_: Address) -> str:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return os.environ["STORE_KEY"]

    monkeypatch.setattr(stores, "revision_of", revision)
    address = read_address("http://127.0.0.1:1/m.onnx")
    assert address is not None
    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(lambda key: stores.look(address, {"STORE_KEY": key}), "ab"))
    assert seen == ["a", "b"]
    assert "STORE_KEY" not in os.environ


def test_credentials_go_to_the_store_and_into_no_message(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store(lambda handler: handler.say(401, b"")) as server:
        with pytest.raises(Unavailable) as raised:
            fetched(f"{server.url}?signature=hidden", HTTP_AUTHORIZATION="Bearer hidden too")
        assert "hidden" not in str(raised.value)
        assert server.asked[0]["authorization"] == "Bearer hidden too"
        assert server.asked[0]["path"] == "/m.onnx?signature=hidden"
    assert "hidden" not in fetched_source(cache)


def test_a_look_notices_a_change_without_fetching(cache: Path) -> None:
    def tagged(number: int) -> Answer:
        return lambda handler: handler.say(200, b"", ETag=f'"{number}"')

    with store(tagged(1), tagged(1), tagged(2)) as server:
        first, same, other = (look(server.url) for _ in range(3))
        assert first == same != other
        assert [one["method"] for one in server.asked] == ["HEAD"] * 3
    with store(lambda handler: handler.say(200, b"")) as server, pytest.raises(InvalidArgument, match="no ETag"):
        look(server.url)
    with store(lambda handler: handler.say(404, b"")) as server, pytest.raises(NotFound):
        look(server.url)
    with pytest.raises(Unavailable, match="cannot be looked at"):
        look(server.url)
    for fixed in ("runs:/1/model", f"{server.url}#sha256={'0' * 64}"):
        with pytest.raises(InvalidArgument):
            look(fixed)
    assert not cache.exists()


def fetched_source(cache: Path) -> str:
    with store(whole) as server:
        return fetched(f"{server.url}?signature=hidden").source


def test_an_encrypted_address_does_not_lead_to_an_open_one(cache: Path) -> None:
    with pytest.raises(InvalidArgument, match="over http://"):
        fetched("http://example.invalid/m.onnx")


def test_a_model_is_packed_from_its_address(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "m.joblib")
    content = (tmp_path / "m.joblib").read_bytes()
    monkeypatch.setenv("CLIPPER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    SecretFiles(tmp_path / "home", {}).set("store", "HTTP_AUTHORIZATION=Basic 1234\n")
    with store(lambda handler: handler.say(200, content, ETag='"1"')) as server:
        address = server.url.replace("m.onnx", "m.joblib")
        with package(address, credentials="store") as artifact, package(tmp_path / "m.joblib") as same:
            assert (artifact.digest, artifact.framework) == (same.digest, "joblib")
            source = f"{address}#sha256={hashlib.sha256(content).hexdigest()}"
            assert artifact.deployed["source"] == source and same.deployed["source"] is None
            assert artifact.warning is not None and "m.joblib is a pickle" in artifact.warning
        assert server.asked[0]["authorization"] == "Basic 1234"


def test_what_nobody_asked_for_in_a_week_is_removed(cache: Path) -> None:
    with store(whole) as server:
        found = fetched(server.url).path
    age_s = 8 * 24 * 3600.0
    stores.remove_old(cache, found.parent.stat().st_mtime + age_s)
    assert not found.exists()
    with pytest.raises(InvalidArgument, match=r"pip install 'clipper-serving\[gs\]'"):
        fetched("gs://bucket/m.onnx")
