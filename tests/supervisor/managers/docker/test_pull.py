"""The images that dockerd is asked to fetch, with a stand-in for dockerd."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import parse_qs, urlsplit

import pytest

from clipper.supervisor.managers.docker.engine import Engine

DIGEST = f"sha256:{'a' * 64}"


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def dockerd(path: Path) -> Iterator[list[tuple[str, str]]]:
    """A dockerd that has fetched any image. Gives the names and the tags, or digests, of the images."""
    fetched: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"ApiVersion": "1.44", "MinAPIVersion": "1.24"})

        def do_POST(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            fetched.append((asked["fromImage"][0], asked["tag"][0]))
            self.answer({"id": "a1", "status": "Pull complete"})

        def answer(self, body: dict[str, str]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with Server(str(path), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield fetched
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", ("sum", "latest")),
        ("sum:3", ("sum", "3")),
        ("localhost:5000/sum", ("localhost:5000/sum", "latest")),
        ("localhost:5000/sum:3", ("localhost:5000/sum", "3")),
        (f"localhost:5000/sum@{DIGEST}", ("localhost:5000/sum", DIGEST)),
    ],
)
def test_an_image_is_fetched_by_its_tag_or_its_digest(tmp_path: Path, name: str, expected: tuple[str, str]) -> None:
    lines: list[str] = []
    with dockerd(tmp_path / "d.sock") as fetched:
        asyncio.run(Engine({"DOCKER_HOST": f"unix://{tmp_path / 'd.sock'}"}).pull(name, lines.append))
    assert fetched == [expected] and lines == ["a1 Pull complete"]
