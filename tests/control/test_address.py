import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.address import ControlAddress, TcpAddress, UnixAddress, parse_address
from clipper.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/w7.sock", UnixAddress("/run/w7.sock")),
        ("/run/w7.sock", UnixAddress("/run/w7.sock")),
        ("/a b/c:1/tcp:h:1", UnixAddress("/a b/c:1/tcp:h:1")),
        ("unix:unix:x", UnixAddress("unix:x")),
        ("unix:tcp:h:1", UnixAddress("tcp:h:1")),
        ("tcp:10.0.0.2:1", TcpAddress("10.0.0.2", 1)),
        ("tcp:node-2.example:65535", TcpAddress("node-2.example", 65535)),
        ("tcp:[fd00::2]:7000", TcpAddress("fd00::2", 7000)),
        ("tcp:fd00::2:7000", TcpAddress("fd00::2", 7000)),
    ],
)
def test_addresses_are_read(text: str, address: ControlAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix:", "unix:a\0b", "\0", "tcp:", "tcp:h", "tcp:h:", "tcp::1", "tcp:[]:1", "tcp:h\0:1"),
        *("tcp:h:0", "tcp:h:65536", "tcp:h:-1", "tcp:h: 1", "tcp:h:1x", "tcp:h:\u0661", "tcp:h:" + "9" * 5000),
    ],
)
def test_what_is_no_address_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InvalidArgument, match="expected the control address unix:PATH or tcp:HOST:PORT"):
        parse_address(text)


def test_workers_of_before_there_were_addresses_read_a_path() -> None:
    assert UnixAddress("/run/w7.sock").wire == "/run/w7.sock"
    assert TcpAddress("fd00::2", 7000).wire == "tcp:[fd00::2]:7000"


@given(st.text())
def test_any_text_is_an_address_that_survives_or_is_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidArgument:
        return
    assert parse_address(str(address)) == address
