"""Files fetched from a registry of container images, which does what it should, and what it should not."""

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clipper.client.packaging.addresses import read_address
from clipper.client.packaging.models import look
from clipper.client.packaging.stores import Fetched, fetch
from clipper.errors import ClipperError, InvalidArgument, NotFound, Unavailable

CONTENT = bytes(range(256)) * 400
TITLE, UNPACK = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
LOGIN = base64.b64encode(b"ada:countess").decode()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        registry = self.server
        assert isinstance(registry, Registry)
        given, path = self.headers.get("Authorization", ""), self.path.partition("?")[0]
        if path == "/token":
            registry.asked.append(f"{self.path} {given}")
            self.say(200, json.dumps({"token": "good"}).encode() if LOGIN in given else b"{}")
        elif registry.is_closed and given != "Bearer good":
            realm = f"http://127.0.0.1:{registry.server_address[1]}/token"
            self.say(401, b"", f'Bearer realm="{realm}",service="test",scope="repository:org/m:pull"')
        else:
            kind, _, name = path.removeprefix("/v2/org/m/").partition("/")
            content = registry.manifests.get(name) if kind == "manifests" else registry.blobs.get(name)
            self.say(404 if content is None else 200, content or b"")

    do_HEAD = do_GET  # noqa: N815  # the name that the library calls

    def say(self, status: int, body: bytes, challenge: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{digest_of(body)}"')
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Registry(ThreadingHTTPServer):
    """A registry with the repository org/m. ``is_closed``: it demands a token."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.is_closed = False

    def push(self, tag: str, *layers: tuple[dict[str, str], bytes]) -> str:
        """Push files with their annotations; return the manifest's digest."""
        described: list[Any] = []
        for annotations, content in layers:
            self.blobs[digest_of(content)] = content
            described.append({"digest": digest_of(content), "size": len(content), "annotations": annotations})
        manifest = json.dumps({"schemaVersion": 2, "layers": described}).encode()
        self.manifests[tag] = self.manifests[digest_of(manifest)] = manifest
        return digest_of(manifest)

    @property
    def address(self) -> str:
        return f"oci://127.0.0.1:{self.server_address[1]}/org/m"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("CLIPPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    server = Registry()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(text: str) -> Fetched:
    address = read_address(text)
    assert address is not None
    return fetch(address, {}, lambda _: None)


def test_a_tag_is_pinned_to_its_manifest_and_moves(registry: Registry) -> None:
    first = registry.push("3", ({TITLE: "m.onnx"}, CONTENT))
    found = fetched(f"{registry.address}:3")
    assert found.path.name == "m.onnx" and found.path.read_bytes() == CONTENT
    assert found.source == f"{registry.address}@{first}#sha256={digest_of(CONTENT)[7:]}"
    assert look(f"{registry.address}:3") == first
    registry.push("3", ({TITLE: "m.onnx"}, CONTENT[::-1]))
    assert look(f"{registry.address}:3") != first
    assert fetched(f"{registry.address}:3").path.read_bytes() == CONTENT[::-1]
    assert fetched(found.source).path.read_bytes() == CONTENT
    with pytest.raises(InvalidArgument, match="does not change"):
        look(f"{registry.address}@{first}")


def test_several_files_and_folders_come_as_a_folder(registry: Registry) -> None:
    folder = {TITLE: "saved", UNPACK: "true"}
    registry.push(
        "latest",
        ({TITLE: "MLmodel"}, b"flavors"),
        ({TITLE: "data/weights.pkl"}, b"a pickle"),
        (folder, tar_of({"saved/a": b"1", "saved/b/c": b"2"})),
    )
    found = fetched(registry.address)
    files = sorted(path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file())
    assert files == ["MLmodel", "data/weights.pkl", "saved/a", "saved/b/c"]
    assert "weights.pkl is a pickle" in str(found.warning)
    registry.push("one", (folder, tar_of({"saved/a": b"1"})))
    assert (fetched(f"{registry.address}:one").path / "a").read_bytes() == b"1"


def test_a_login_gets_tokens_and_is_in_no_message(registry: Registry, tmp_path: Path) -> None:
    registry.is_closed = True
    registry.push("3", ({TITLE: "m.onnx"}, CONTENT))
    with pytest.raises(Unavailable, match="is refused with 401: name credentials"):
        fetched(f"{registry.address}:3")
    host = registry.address.removeprefix("oci://").partition("/")[0]
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": LOGIN}}}))
    found = fetched(f"{registry.address}:3")
    assert found.path.read_bytes() == CONTENT and LOGIN not in found.source
    assert registry.asked[-1] == f"/token?service=test&scope=repository%3Aorg%2Fm%3Apull Basic {LOGIN}"


@pytest.mark.parametrize(
    ("layers", "kind", "why"),
    [
        ((({}, b"a layer of an image"),), InvalidArgument, "has no files with names"),
        ((), InvalidArgument, "has no files with names"),
        ((({TITLE: "../../m.onnx"}, CONTENT),), Unavailable, "not below the model's folder"),
        ((({TITLE: "saved", UNPACK: "true"}, tar_of({"../other": b"1"})),), Unavailable, "outside the destination"),
        ((({TITLE: "saved", UNPACK: "true"}, tar_of({"other/a": b"1"})),), Unavailable, "that lacks this folder"),
        ((({TITLE: "saved", UNPACK: "true"}, CONTENT),), Unavailable, "ReadError"),
    ],
)
def test_what_is_no_model_is_refused(registry: Registry, layers: Any, kind: type[ClipperError], why: str) -> None:
    registry.push("3", *layers)
    with pytest.raises(kind, match=why):
        fetched(f"{registry.address}:3")


def test_content_that_is_not_what_its_digest_says_is_refused(registry: Registry) -> None:
    digest = registry.push("3", ({TITLE: "m.onnx"}, CONTENT))
    registry.blobs[digest_of(CONTENT)] = CONTENT[::-1]
    with pytest.raises(Unavailable, match=r"m\.onnx with another digest than it announced"):
        fetched(f"{registry.address}:3")
    registry.manifests[digest] += b" "
    with pytest.raises(Unavailable, match="another manifest"):
        fetched(f"{registry.address}@{digest}")
    registry.manifests["3"] = b"<html>"
    with pytest.raises(Unavailable, match="is no manifest"):
        fetched(f"{registry.address}:3")
    with pytest.raises(NotFound, match="there is no oci://"):
        fetched(f"{registry.address}:4")
    with pytest.raises(InvalidArgument, match="is malformed: expected oci://HOST/REPOSITORY:TAG"):
        fetched(f"{registry.address}:3@md5:1")
