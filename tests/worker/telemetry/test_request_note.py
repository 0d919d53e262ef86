import pytest

from clipper.worker.telemetry.request_note import MAX_REQUEST_ID_BYTES, read_request_id


@pytest.mark.parametrize("value", [b"a", b"7c1e-0.9_:+/=@", b"x" * MAX_REQUEST_ID_BYTES])
def test_an_id(value: bytes) -> None:
    assert read_request_id(value) == value.decode()


@pytest.mark.parametrize(
    "value", [b"", b"a b", b"a\r\nb", b"a\n", b'"a"', b"a;b", b"\xc3\xa9", b"x" * (MAX_REQUEST_ID_BYTES + 1), b"<a>"]
)
def test_what_is_no_id(value: bytes) -> None:
    assert read_request_id(value) == ""
