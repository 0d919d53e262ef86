"""How texts on the command line are read."""

import io

import pytest

from clipper.errors import InvalidArgument
from clipper.settings.replicas import ReplicaRange, read_replicas
from clipper.settings.texts import (
    checked_ports,
    read_endpoint,
    read_grpc_port,
    read_json,
    read_ports,
    read_registry,
    read_resources,
    read_size,
    text_of,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("512m", 512 * 1024**2),
        ("2G", 2 * 1024**3),
        ("1.5 KiB", 1536),
        ("3MB", 3 * 1024**2),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert read_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1 2", "1e3", "9" * 5000])
def test_texts_that_are_no_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="512m"):
        read_size(text)


def test_standard_input_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
    with pytest.raises(InvalidArgument, match="standard input cannot be read"):
        text_of("-")


def test_ports() -> None:
    assert read_ports(checked_ports("1024-65535")) == (1024, 65535)
    assert read_ports(checked_ports("21000-21000")) == (21000, 21000)


@pytest.mark.parametrize("text", ["", "21000", "1023-2000", "2000-1999", "2000-65536", "a-b", "21 - 22", "9" * 5000])
def test_texts_that_are_no_ports(text: str) -> None:
    with pytest.raises(InvalidArgument, match="21000-21999"):
        checked_ports(text)


@pytest.mark.parametrize("text", ["", "-1", "65536", "0000070000", "9" * 5000, "OFF", "²"])
def test_texts_that_are_no_port(text: str) -> None:
    with pytest.raises(InvalidArgument, match="from 0 to 65535, or off"):
        read_grpc_port(text)


@pytest.mark.parametrize(
    ("text", "resources"),
    [
        ("ssd=1", {"ssd": 1.0}),
        ("ssd=1, TPU=0.5", {"ssd": 1.0, "TPU": 0.5}),
        ("accelerator_type:A100=0.0001", {"accelerator_type:A100": 0.0001}),
    ],
)
def test_resources(text: str, resources: dict[str, float]) -> None:
    assert read_resources(text) == resources


@pytest.mark.parametrize(
    "text",
    ["", "ssd", "ssd=", "=1", "ssd=x", "ssd=0", "ssd=-1", "ssd=nan", "ssd=1e400", "ssd=1,", "ssd=1,ssd=2", "a b=1"],
)
def test_texts_that_are_no_resources(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected"):
        read_resources(text)


@pytest.mark.parametrize(
    ("text", "replicas"),
    [("3", 3), ("1..4", ReplicaRange(1, 4)), ("2..2", ReplicaRange(2, 2)), ("0..1", ReplicaRange(0, 1))],
)
def test_replicas(text: str, replicas: int | ReplicaRange) -> None:
    assert read_replicas(text) == replicas


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1..", "..4", "0..0", "4..1", "1...4", "1..4..9", "9" * 5000])
def test_texts_that_are_no_replicas(text: str) -> None:
    with pytest.raises(InvalidArgument):
        read_replicas(text)


def test_json() -> None:
    assert read_json('{"a": [1, null]}') == {"a": [1, None]}


# No number of JSON is infinite or none at all, and no answer to such a text may be a traceback.
@pytest.mark.parametrize("text", ["", "cat", "{", "'a'", "1e400", "[-1e400]", "NaN", "[Infinity]", "[" * 100_000])
def test_texts_that_are_no_json(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not JSON"):
        read_json(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://localhost:4318", "http://localhost:4318"),
        ("https://[::1]:4318/", "https://[::1]:4318"),
        ("http://host/otlp/v1/traces", "http://host/otlp"),
    ],
)
def test_endpoints(text: str, endpoint: str) -> None:
    assert read_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:4318",
        "grpc://h:4317",
        "http://",
        "http://h:0",
        "http://h:99999",
        "http://[::1",
        "http://h h",
        "http://h\n",
    ],
)
def test_texts_that_are_no_endpoint(text: str) -> None:
    with pytest.raises(InvalidArgument, match="localhost:4318"):
        read_endpoint(text)


@pytest.mark.parametrize("text", ["http://user:secret@h", "http://h?key=secret", "http://h/#a"])
def test_an_endpoint_has_no_credentials(text: str) -> None:
    with pytest.raises(InvalidArgument, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        read_endpoint(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["redis://h", "rediss://user:p@h:6379/0", "unix:///run/redis.sock", "file:/etc/clipper/registry"]
)
def test_addresses_of_a_registry(text: str) -> None:
    assert read_registry(text) == text


@pytest.mark.parametrize("text", ["", "yes", "redis:", "redis://", "http://h", "sqlite:x", "redis://:secret@h:port"])
def test_texts_that_are_no_registry(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^registry .*redis://HOST:PORT/DB") as caught:
        read_registry(text)
    assert "secret" not in str(caught.value)
