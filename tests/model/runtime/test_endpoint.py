import socket
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument
from clipper.model.runtime.endpoint import Endpoint, described, listening


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("unix:/run/a.sock", Endpoint(path=Path("/run/a.sock"))),
        ("unix:relative", Endpoint(path=Path("relative"))),
        ("tcp:127.0.0.1:80", Endpoint(host="127.0.0.1", port=80)),
        ("tcp:[::1]:80", Endpoint(host="::1", port=80)),
        ("tcp:name:0", Endpoint(host="name", port=0)),
    ],
)
def test_addresses_round_trip(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "text", ["", "unix:", "unix", "tcp:80", "tcp::80", "tcp:host:", "tcp:host:x", "tcp:h:65536", "udp:h:1"]
)
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected unix:PATH or tcp:HOST:PORT"):
        Endpoint.parse(text)


def test_port_0_is_told(tmp_path: Path) -> None:
    with listening(Endpoint.parse("tcp:127.0.0.1:0")) as listener:
        assert Endpoint.parse(described(listener)).port > 0


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("keep")
    with pytest.raises(OSError, match="in use"), listening(Endpoint(path=path)):
        pass
    assert path.read_text() == "keep"


def test_socket_file_of_another_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(Endpoint(path=path)):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()
